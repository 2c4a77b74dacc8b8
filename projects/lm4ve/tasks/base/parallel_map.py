"""Maps a function over the files of a data set, in processes, with one run at a time.

Converting a data set takes minutes to hours and is started by hand, so somebody may start a
second run on the same output, and start a killed one again.
"""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from lm4ve.errors import UserError
from lm4ve.files import clear_left_behind
from lm4ve.tasks.base.progress import progress

Item = TypeVar('Item')
Result = TypeVar('Result')


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Lock an output against a second run, and delete what killed runs left beside it.

    The lock is a file beside the output. The system releases it when the process ends, however
    it ends.

    Args:
        path (Path): The file or folder to write.

    Raises:
        UserError: Another run holds the lock.
    """
    lock = path.with_name(f'.{path.name}.lock')
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(lock, timeout=0):
            clear_left_behind(path.parent)
            yield
            lock.unlink(missing_ok=True)
    except Timeout as e:
        raise UserError(f"Another run is making '{path}' now. Fix: wait until it ends.") from e


def parallel_map(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    text: str,
    workers: int = 1,
    quiet: bool = False,
) -> Iterator[Result]:
    """Yield the result of a function for each item, in the order in which they are finished.

    Args:
        work (callable): Processes one item; picklable if ``workers`` is above 1.
        items (Sequence): The items.
        text (str): The title of the progress bar.
        workers (int): Processes; 1 runs in this process.
        quiet (bool): Hide the progress bar.
    """
    # A spawned process would import torch and the hosts again, which takes longer than its work.
    context = multiprocessing.get_context('fork')
    with context.Pool(workers) if workers > 1 else nullcontext() as pool:
        done = pool.imap_unordered(work, items) if pool else map(work, items)
        yield from done if quiet else progress(done, text, len(items))
