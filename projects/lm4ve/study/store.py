"""The folder of a study's results: a job is done when its file is there and whole.

    <folder>/lock                  held while a command works here
    <folder>/<key>/result.json     the result: exists and is whole: done
    <folder>/<key>/spec.json       the job, from which a process runs it
    <folder>/<key>/log.txt         what it printed
    <folder>/<key>/failure.json    why it has no result, until it is tried again
    <folder>/<key>/run/            a training; a checkpoint until it is done
    <folder>/<key>.lock            held while the job runs

Studies that share a folder share their jobs: what is decided by the same things is run
once.
"""

import contextlib
import math
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lm4ve.errors import UserError, require
from lm4ve.files import ORPHANS, read_json, require_writable, sole_use, write_json
from lm4ve.runner.same_data import VERSIONS, changed_versions
from lm4ve.study.job import KINDS, Job

RESULT = 'result.json'
SPEC = 'spec.json'
LOG = 'log.txt'
FAILURE = 'failure.json'
#: A label in a file.
_LABEL = np.dtype('<i4')
#: Fields of a result that have a label for each sample.
_OF_SAMPLES = ('predicted', 'labels')


@dataclass(frozen=True)
class Result:
    """What a job gave.

    Attributes:
        metrics (dict[str, float]): As the test reports them.
        scored (int): How many samples they are over.
        total (int): How many there would be without damage.
        seconds (float): How long it took, over all of its starts.
        predicted (np.ndarray, optional): The label given to each of the samples, int64
            ``[scored]``; -1 for scores that are not finite. None: nobody knows.
        labels (np.ndarray, optional): The true ones, int64 ``[scored]``, of a job whose
            samples nobody else knows.
        facts (dict[str, Any]): Whatever else a report shows: parameters, seconds of a
            step, the device.
    """

    metrics: dict[str, float]
    scored: int
    total: int
    seconds: float
    predicted: np.ndarray | None = None
    labels: np.ndarray | None = None
    facts: dict[str, Any] = field(default_factory=dict)


#: Jobs that are done, each with its result.
Done = list[tuple[Job, Result]]


class Store:
    """A folder of results, made when something is written.

    Args:
        folder (Path): The folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def folder_of(self, job: Job) -> Path:
        """Return the folder of a job, which may not exist yet."""
        return self.folder / job.key

    def result(self, job: Job) -> Result | None:
        """Return a job's result, or None if it has to be run."""
        return read_result(self.folder_of(job))

    def note_failure(self, job: Job, reason: str) -> None:
        """Write down why a job gave no result; not where the disk is full."""
        with contextlib.suppress(UserError):
            write_json(dict(reason=reason), self.folder_of(job) / FAILURE)

    def failure(self, job: Job) -> str | None:
        """Return why a job gave no result when it was tried last; None if it did not fail."""
        if self.result(job) is not None:
            return None
        stored = read_json(self.folder_of(job) / FAILURE)
        if not isinstance(stored, dict):
            return None
        return str(stored.get('reason'))

    def done(self, jobs: Iterable[Job]) -> Done:
        """Return the jobs that have a result, with it."""
        found = []
        for job in jobs:
            result = self.result(job)
            if result is not None:
                found.append((job, result))
        return found

    def prepare(self, job: Job) -> None:
        """Empty a job's folder but for an unfinished training, and write the job into it.

        A result stays, with all that is beside it: another process may have written it
        since the caller looked.

        Raises:
            UserError: A job of an earlier command still writes there, or nothing can be
                written.
        """
        folder = self.folder_of(job)
        try:
            with sole_use(lock_of(folder), ORPHANS):
                if read_result(folder) is not None:
                    return
                _delete_all_but_training(folder, KINDS[job.kind].continues)
                folder.mkdir(exist_ok=True)
                write_json(_to_json(job), folder / SPEC)
        except OSError as e:
            raise UserError(f"'{folder}' cannot be written: {e.strerror or e}.") from e

    @contextlib.contextmanager
    def lock(self, field: str) -> Iterator[None]:
        """Hold the folder inside.

        Args:
            field (str): The flag that names it, for errors.

        Raises:
            UserError: Nothing can be written into it, or another command works in it.
        """
        require_writable(self.folder, field)
        with sole_use(self.folder / 'lock'):
            yield


def lock_of(folder: Path) -> Path:
    """Return the lock of a job's folder.

    It lies beside the folder, since the folder is emptied under the lock.
    """
    return folder.with_name(f'{folder.name}.lock')


def _delete_all_but_training(folder: Path, continues: bool) -> None:
    """Delete what is in a job's folder, but for a training that may go on.

    Its specification stays beside it until a new one replaces it: without it, a later
    command could not tell that the training may go on.

    Args:
        folder (Path): The folder.
        continues (bool): Whether jobs of this kind go on at all.
    """
    kept: tuple[str, ...] = ()
    if continues and _may_continue(read_json(folder / SPEC)):
        kept = ('run', SPEC)
    for path in folder.glob('*'):
        if path.name in kept:
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _may_continue(stored: Any) -> bool:
    """Return whether the training of a specification from a file may go on here.

    With other versions of the libraries that make pixels it may not. The versions of this
    package and of PyTorch, and the number of processes, are part of the key.
    """
    if not isinstance(stored, dict) or not isinstance(stored.get('spec'), dict):
        return False
    return not changed_versions(stored['spec'].get(VERSIONS))


# ------------------------------------------------------------------------------- files
def _to_json(job: Job) -> dict[str, Any]:
    """Return a job as its file holds it; the value as Python, since it may be a tuple."""
    return dict(vars(job), value=repr(job.value), spec=dict(job.spec))


def read_spec(folder: Path) -> tuple[str, dict[str, Any]]:
    """Return the kind and the specification of the job in a folder.

    Raises:
        UserError: There is none, or it is of another folder's job.
    """
    stored = read_json(folder / SPEC)
    is_job = isinstance(stored, dict) and isinstance(stored.get('spec'), dict)
    require(is_job, f"'{folder / SPEC}' is missing or damaged. Fix: start again.")
    # The folder's name is a hash of what is run, so that it, not the file, decides.
    require(
        stored.get('key') == folder.name and stored.get('kind') in KINDS,
        f"'{folder / SPEC}' is of another job than its folder. Fix: start again.",
    )
    return stored['kind'], stored['spec']


def write_result(result: Result, folder: Path) -> None:
    """Write a job's result into its folder, which is named by the job's key."""
    record = dict(vars(result), key=folder.name)
    for name in _OF_SAMPLES:
        if record[name] is not None:
            record[name] = record[name].astype(_LABEL).tobytes().hex()
    write_json(record, folder / RESULT)


def read_result(folder: Path) -> Result | None:
    """Read a job's result from its folder; None if it is missing, damaged or of another job."""
    stored = read_json(folder / RESULT)
    if not isinstance(stored, dict) or stored.get('key') != folder.name:
        return None
    metrics = stored.get('metrics')
    facts = stored.get('facts')
    if not isinstance(metrics, dict) or not isinstance(facts, dict):
        return None
    counts = (stored.get('scored'), stored.get('total'))
    if not all(type(count) is int for count in counts):
        return None
    if not all(_is_number(number) for number in metrics.values()):
        return None
    seconds: Any = stored.get('seconds')
    if not _is_number(seconds) or not 0 <= seconds < math.inf:
        return None
    of_samples = {}
    for name in _OF_SAMPLES:
        if stored.get(name) is None:
            continue
        labels = _unpack(stored[name])
        if labels is None or len(labels) != stored['scored']:
            return None
        of_samples[name] = labels
    return Result(
        metrics=metrics,
        scored=stored['scored'],
        total=stored['total'],
        seconds=float(seconds),
        facts=facts,
        **of_samples,
    )


def _is_number(value: Any) -> bool:
    """Return whether a value is an int or a float; a bool is neither."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _unpack(digits: Any) -> np.ndarray | None:
    """Unpack labels from hex digits to int64 ``[n]``; None if the value is damaged."""
    if not isinstance(digits, str):
        return None
    try:
        labels = np.frombuffer(bytes.fromhex(digits), _LABEL).astype(np.int64)
    except ValueError:
        return None
    if len(labels) and labels.min() < -1:
        return None
    return labels
