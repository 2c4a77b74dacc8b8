"""Two runs of one process keep their logs apart.

MMEngine names the log folder, the logger, the visualizer and the message hub of a run by
the second in which the run begins. A run that begins within the second of another one in
the same process (a training and its test on a fast machine, the trials of a notebook)
is handed the other's visualizer, which writes into the other's folder.
"""

from typing import Any

from mmengine.runner import Runner

_taken: set[str] = set()


def with_own_log(runner: type[Runner]) -> type[Runner]:
    """Return the runner's class; no two of its runs in this process share a time stamp.

    The second run of a second is named ``20261126_012733_2``. All ranks count alike, since
    rank 0's clock is broadcast and every rank builds the same runs.
    """

    def setup_env(self: Any, env_cfg: dict[str, Any]) -> None:
        runner.setup_env(self, env_cfg)
        second, n = self._timestamp, 1
        while self._timestamp in _taken:
            n += 1
            self._timestamp = f'{second}_{n}'
        _taken.add(self._timestamp)

    return type(runner.__name__, (runner,), dict(setup_env=setup_env, __doc__=runner.__doc__))
