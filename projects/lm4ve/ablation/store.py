"""The work folder of grids: results, locks, and the values that tuning selected.

    <work dir>/lock                         held while the command runs
    <work dir>/trials/<id>/result.json      exists: done; missing: to be done
    <work dir>/trials/<id>/log.txt          what the trial printed
    <work dir>/trials/<id>.lock             held while the trial runs
    <work dir>/<grid name>/results.csv      and tables, plot, timings

Grids that share a folder share their trials: the same config with the same seed is
trained once.
"""

import itertools
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lm4ve.ablation.grid import Grid, Trial
from lm4ve.errors import UserError, check
from lm4ve.files import read_json, require_writable, sole_use

#: Fields of a result that are numbers.
_NUMBERS = ('trainable', 'frozen', 'step_seconds', 'wall_seconds', 'world_size')
#: Seconds that a trial of a killed command may need to end.
ORPHANS = 30.0


class Store:
    """A work folder.

    Args:
        work_dir (Path): Made when something is written.
        world_size (int): Processes that a trial trains with. Their number changes
            the batch: results of another number do not count.
    """

    def __init__(self, work_dir: Path, world_size: int = 1) -> None:
        self.work_dir, self.world_size = Path(work_dir), world_size

    def folder(self, trial: Trial) -> Path:
        return self.work_dir / 'trials' / trial.id

    def result(self, trial: Trial) -> dict | None:
        """Return a trial's result; None where there is none, or it is damaged or another's."""
        result = read_json(self.folder(trial) / 'result.json')
        if not isinstance(result, dict) or not _is_result(result):
            return None
        is_own = result['id'] == trial.id and result['world_size'] == self.world_size
        return result if is_own else None

    def clear(self, trial: Trial) -> Path:
        """Empty a trial's folder, or make it.

        Raises:
            UserError: A trial of an earlier command still writes there, or nothing can
                be written.
        """
        folder = self.folder(trial)
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with trial_lock(folder, ORPHANS):
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
        except Timeout as e:
            raise UserError(
                f"A trial of an earlier command still writes in '{folder}'."
            ) from e
        except OSError as e:
            raise UserError(f"'{folder}' cannot be written: {e.strerror or e}.") from e
        return folder

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder inside.

        Raises:
            UserError: Nothing can be written into it, or another command works in it.
        """
        require_writable(self.work_dir, '--work-dir')
        with sole_use(self.work_dir / 'lock'):
            yield


def _is_result(stored: dict[str, Any]) -> bool:
    """Return whether what a file holds has the fields of a result, in their types."""
    metrics = stored.get('metrics')
    if not isinstance(metrics, dict) or not all(map(_is_number, metrics.values())):
        return False
    return 'id' in stored and all(_is_number(stored.get(name)) for name in _NUMBERS)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def trial_lock(folder: Path, timeout: float) -> FileLock:
    """Return the lock of a trial's folder, which lies beside it and ends with its process."""
    return FileLock(folder.with_name(f'{folder.name}.lock'), timeout=timeout)


def select_tuned(grid: Grid, store: Store) -> dict[str, Any]:
    """Return the best value of each variant whose tuning is complete.

    The best value has the best mean of the metric over the tuning seeds. A score that
    is not finite counts as the worst; of equal ones the first in the grid wins.

    Raises:
        UserError: A result lacks the grid's metric.
    """
    means: dict[str, dict[Any, float]] = {v.name: {} for v in grid.variants}
    trials = itertools.groupby(grid.tuning(), key=lambda t: (t.variant, t.value))
    for (variant, value), group in trials:
        results = [store.result(t) for t in group]
        finished = [r for r in results if r is not None]
        if len(finished) < len(results):
            continue
        sign = 1 if grid.greater_is_better else -1
        mean = sign * sum(metric_of(grid, r) for r in finished) / len(finished)
        means[variant][value] = mean if math.isfinite(mean) else -math.inf
    return {
        variant: max(by_value, key=by_value.__getitem__)
        for variant, by_value in means.items()
        if grid.tune and len(by_value) == len(grid.tune.values)
    }


def metric_of(grid: Grid, result: dict) -> float:
    """Return the grid's metric of a result.

    Raises:
        UserError: The test did not report it.
    """
    check('metric', grid.metric, choices=sorted(result['metrics']))
    return result['metrics'][grid.metric]
