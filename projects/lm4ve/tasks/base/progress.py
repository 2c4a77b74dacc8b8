"""How far something is that takes a while: a bar on a terminal, a line elsewhere."""

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import track

T = TypeVar('T')


def progress(items: Iterable[T], text: str, total: int | None = None) -> Iterator[T]:
    """Yield items and show on standard error how many are done.

    A log file or a pipe gets one line at the start instead of a bar.

    Args:
        items (Iterable[T]): What is worked through.
        text (str): What is done, for example 'simulating'.
        total (int, optional): The number of items; default: ``len(items)``.
    """
    count = len(items) if total is None else total  # type: ignore[arg-type]
    console = Console(stderr=True)
    if console.is_terminal:
        yield from track(items, text, count, console=console)
        return
    print(f'{text}: {count:,} in all', file=sys.stderr, flush=True)
    yield from items
