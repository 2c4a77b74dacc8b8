"""The progress bar of everything that takes a while."""

from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

T = TypeVar('T')


def progress(items: Iterable[T], text: str, total: int | None = None) -> Iterable[T]:
    """Iterate over items with a bar on standard error, which only a terminal shows.

    Args:
        items (Iterable[T]): The items.
        text (str): The title, for example 'simulating'.
        total (int, optional): The number of items. Default: ``len(items)``.
    """
    return tqdm(items, text, total, disable=None)
