"""Commands that turn a data set's files into others: one run at a time, in processes.

Such a run takes minutes to hours and is started by hand, so that a second one may be
started on the same output, and a killed one again.
"""

import fcntl
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TypeVar

from lm4ve.errors import UserError
from lm4ve.files import clear_left_behind
from lm4ve.tasks.base.progress import progress

Item = TypeVar('Item')
Result = TypeVar('Result')


@contextmanager
def alone(path: Path) -> Iterator[int]:
    """Refuse a second run on one output, and clear what killed runs left beside it.

    The lock is a file beside the output and goes with its process, however that ends.

    Args:
        path (Path): The file or folder that is written.

    Yields:
        int: The descriptor of the lock.

    Raises:
        UserError: Another run has the lock; the place cannot be written to.
    """
    lock = path.with_name(f'.{path.name}.lock')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as e:
        raise UserError(
            f"'{path}' could not be written: {e.strerror}. Fix: name another output."
        ) from e
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _is_still(lock, descriptor):  # a run ended between both calls and took it away
                raise BlockingIOError
        except BlockingIOError as e:
            raise UserError(
                f"Another run is making '{path}' now (it holds '{lock}'). Fix: wait until it has "
                'ended, or name another output.'
            ) from e
        clear_left_behind(path.parent)
        yield descriptor
        lock.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _is_still(path: Path, descriptor: int) -> bool:
    """Return whether a path still names the file that was opened."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def in_processes(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    text: str,
    lock: int,
    workers: int = 1,
    quiet: bool = False,
) -> Iterator[Result]:
    """Yield what a function returns for each item, as soon as it is there.

    Args:
        work (callable): Does one item; picklable with more than one process.
        items (Sequence): What is to be done.
        text (str): What the progress bar says.
        lock (int): What :func:`alone` yielded.
        workers (int): Processes; with 1 this one does everything.
        quiet (bool): Show no progress bar.
    """
    # Forked where that exists: a spawned process takes longer to import all of this
    # than it works. A forked one must not keep the lock of a run that is killed.
    fork = 'fork' in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context('fork' if fork else 'spawn')
    release, given = (os.close, (lock,)) if fork else (None, ())
    with context.Pool(workers, release, given) if workers > 1 else nullcontext() as pool:
        done = pool.imap_unordered(work, items) if pool else map(work, items)
        yield from done if quiet else progress(done, text, len(items))
