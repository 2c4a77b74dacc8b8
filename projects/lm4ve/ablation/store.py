"""The work folder of grids: results, locks, and the values that tuning selected.

    <work dir>/lock                         held while the command runs
    <work dir>/trials/<id>/result.json      exists: done; missing: to be done
    <work dir>/trials/<id>/spec.json        what the trial is, and with which libraries
    <work dir>/trials/<id>/log.txt          what the trial printed
    <work dir>/trials/<id>/run/             its training; a checkpoint until it is done
    <work dir>/trials/<id>.lock             held while the trial runs
    <work dir>/<grid name>/results.csv      and tables, plot, timings

Grids that share a folder share their trials: the same config with the same seed is
trained once.
"""

import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lm4ve.ablation.grid import Grid, Trial
from lm4ve.errors import UserError, check, listing, require
from lm4ve.files import read_json, require_writable, sole_use
from lm4ve.runner.same_data import VERSIONS, changed_versions
from lm4ve.runner.scored_data import SampleCounts

#: Fields of a result that are numbers.
_NUMBERS = (
    'scored',
    'total',
    'trainable',
    'frozen',
    'step_seconds',
    'wall_seconds',
    'world_size',
)
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
        self.work_dir = Path(work_dir)
        self.world_size = world_size

    def folder(self, trial: Trial) -> Path:
        """Return the folder of a trial, which may not exist yet."""
        return self.work_dir / 'trials' / trial.id

    def result(self, trial: Trial) -> dict | None:
        """Return a trial's result as its process wrote it, or None if it has to be run.

        A file that is missing or damaged, or that is of another trial or another number
        of processes, is no result.
        """
        result = read_json(self.folder(trial) / 'result.json')
        if not isinstance(result, dict) or not _is_result(result):
            return None
        if result['id'] != trial.id or result['world_size'] != self.world_size:
            return None
        return result

    def clear(self, trial: Trial) -> Path:
        """Empty a trial's folder but for an unfinished training, or make it.

        Raises:
            UserError: A trial of an earlier command still writes there, or nothing can
                be written.
        """
        folder = self.folder(trial)
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with trial_lock(folder, ORPHANS):
                self._delete_all_but_training(trial)
                folder.mkdir(exist_ok=True)
        except Timeout as e:
            raise UserError(
                f"A trial of an earlier command still writes in '{folder}'."
            ) from e
        except OSError as e:
            raise UserError(f"'{folder}' cannot be written: {e.strerror or e}.") from e
        return folder

    def _delete_all_but_training(self, trial: Trial) -> None:
        """Delete what is in a trial's folder, but for a training that may continue.

        The training's specification stays beside it until a new one replaces it: without
        it, a later command could not tell that the training may continue.
        """
        folder = self.folder(trial)
        kept: tuple[str, ...] = ()
        if self._may_continue(read_json(folder / 'spec.json')):
            kept = ('run', 'spec.json')
        for path in folder.glob('*'):
            if path.name in kept:
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def _may_continue(self, spec: Any) -> bool:
        """Return whether the training of a specification from a file may continue here.

        With another number of processes it may not, which changes the batch; nor with
        other versions of the libraries that make pixels. The versions of this package
        and of PyTorch are part of a trial's id.
        """
        if not isinstance(spec, dict) or spec.get('world_size') != self.world_size:
            return False
        return not changed_versions(spec.get(VERSIONS))

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
    """Return whether a dict from a file has the fields of a result, in their types."""
    metrics = stored.get('metrics')
    if 'id' not in stored or not isinstance(metrics, dict):
        return False
    numbers = list(metrics.values())
    for name in _NUMBERS:
        numbers.append(stored.get(name))
    return all(_is_number(number) for number in numbers)


def _is_number(value: Any) -> bool:
    """Return whether a value is an int or a float; a bool is neither."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def trial_lock(folder: Path, timeout: float) -> FileLock:
    """Return the lock of a trial's folder; the process that holds it frees it by ending.

    The lock's file lies beside the folder, since the folder is emptied under the lock.

    Args:
        folder (Path): The trial's folder.
        timeout (float): Seconds to wait for the lock; -1: without end.
    """
    return FileLock(folder.with_name(f'{folder.name}.lock'), timeout=timeout)


def select_tuned(grid: Grid, store: Store) -> dict[str, Any]:
    """Return the best value of each variant whose tuning is complete.

    The best value has the best mean of the metric over the tuning seeds. A score that
    is not finite counts as the worst; of equal ones the first in the grid wins.

    Raises:
        UserError: A result lacks the grid's metric, or values of a variant were scored on
            different numbers of samples.
    """
    if grid.tune is None:
        return {}
    finished: dict[tuple[str, Any], list[dict]] = {}
    for trial in grid.tuning():
        results = finished.setdefault((trial.variant, trial.value), [])
        result = store.result(trial)
        if result is not None:
            results.append(result)
    selected = {}
    for variant in grid.variants:
        score_of = {}
        counts: set[SampleCounts] = set()
        for value in grid.tune.values:
            results = finished[variant.name, value]
            counts.update(counts_of(result) for result in results)
            if len(results) == len(grid.tune.seeds):
                score_of[value] = _score(grid, results)
        is_complete = len(score_of) == len(grid.tune.values)
        numbers = listing(sorted(str(count) for count in counts))
        require(
            len(counts) <= 1,
            f"tune: trials of '{variant.name}' are over {numbers}, and are not compared. "
            f"Fix: mend the data, remove '{store.work_dir}', and run it again.",
        )
        if is_complete:
            selected[variant.name] = max(score_of, key=score_of.__getitem__)
    return selected


def _score(grid: Grid, results: list[dict]) -> float:
    """Return the mean of the metric with a sign by which higher is better.

    A mean that is not finite gives -inf, so that it never wins.
    """
    sign = 1 if grid.greater_is_better else -1
    mean = sign * sum(metric_of(grid, result) for result in results) / len(results)
    if not math.isfinite(mean):
        return -math.inf
    return mean


def counts_of(result: dict) -> SampleCounts:
    """Return how many samples the metrics of a result are over, and of how many."""
    return SampleCounts(result['scored'], result['total'])


def metric_of(grid: Grid, result: dict) -> float:
    """Return the grid's metric of a result.

    Raises:
        UserError: The test did not report it.
    """
    check('metric', grid.metric, choices=sorted(result['metrics']))
    return result['metrics'][grid.metric]
