"""The tokens of texts as boxes in a picture."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Sizes of words in points; the largest that fits is taken.
_SIZES = (10, 9, 8, 7, 6, 5, 4, 3)
#: Of a fixed-width font, by its size: width of a letter and height of a line.
_LETTER, _LINE = 0.602, 1.75
#: Inches between words.
_GAP = 0.035
_STYLE: dict[str, Any] = dict(
    family='monospace',
    ha='center',
    va='center_baseline',
    clip_on=True,
    parse_math=False,
)


def flow(
    words: list[str], width: float, height: float
) -> tuple[list[tuple[float, float, float, float]], float, float]:
    """Place words line by line, as large as they fit.

    Args:
        words (list[str]): The words.
        width, height (float): The room in inches.

    Returns:
        tuple: A box ``(x, y, width, height)`` for each word, in inches from the upper
            left
        corner; the size of the font in points; and the height of all lines.
    """
    for size in _SIZES:
        line = _LINE * size / 72
        boxes, x, y = [], _GAP, _GAP
        for word in words:
            across = (len(_fitting(word, width, size)) + 0.8) * _LETTER * size / 72
            if x > _GAP and x + across > width - _GAP:
                x, y = _GAP, y + line + _GAP
            boxes.append((x, y, across, line))
            x += across + _GAP
        if y + line + _GAP <= height:
            break
    return boxes, size, y + line + _GAP


def draw_words(
    axes: 'Axes',
    words: Sequence[str],
    places: Sequence[tuple[float, float, float, float]],
    size: float,
    shades: list | np.ndarray,
    top: float,
    width: float,
) -> None:
    """Draw words in boxes.

    Args:
        axes (Axes): Where to draw, in inches from its upper left corner.
        words (Sequence[str]): The words.
        places (Sequence[tuple]), size (float): What :func:`flow` has returned.
        shades (list | np.ndarray): A color for each box.
        top (float): Inches above the first line.
        width (float): How wide a line is, in inches.
    """
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Rectangle

    for word, (x, y, across, height), shade in zip(words, places, shades, strict=True):
        box = Rectangle(
            (x, y + top), across, height, facecolor=shade, edgecolor='.7', lw=0.4
        )
        axes.add_patch(box)
        dark = np.dot(to_rgb(shade), [0.299, 0.587, 0.114]) < 0.5
        middle = x + across / 2, y + top + height / 2
        shown = _fitting(word, width, size)
        axes.text(
            *middle, shown, fontsize=size, color='white' if dark else 'black', **_STYLE
        )


def _fitting(word: str, width: float, size: float) -> str:
    """Cut a word that is wider than a line."""
    most = int((width - 2 * _GAP) / (_LETTER * size / 72) - 1)
    return word if len(word) <= most else f'{word[: most - 1]}…'
