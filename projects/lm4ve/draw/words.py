"""The tokens of texts as boxes in a picture."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Sizes of words in points; the largest that fits is taken.
_SIZES = (10, 9, 8, 7, 6, 5, 4, 3)
#: The width of a letter and the height of a line, in sizes of a fixed-width font.
_LETTER = 0.602
_LINE = 1.75
#: Inches between words.
_GAP = 0.035
#: The background of a word counts as dark if its gray value is below this.
_DARK = 0.5
_STYLE: dict[str, Any] = dict(
    family='monospace',
    ha='center',
    va='center_baseline',
    clip_on=True,
    parse_math=False,
)

#: The box of a word in inches from the upper left corner: x, y, width, height.
Box = tuple[float, float, float, float]


class Flow(NamedTuple):
    """Words that are placed line by line.

    Attributes:
        boxes (list[Box]): The box of each word.
        size (float): The size of the font in points.
        height (float): The height of all lines in inches.
    """

    boxes: list[Box]
    size: float
    height: float


def flow(words: list[str], width: float, height: float) -> Flow:
    """Place words line by line, as large as they fit.

    Args:
        words (list[str]): The words.
        width, height (float): The room in inches. Where even the smallest words do not
            fit, they need more height.
    """
    for size in _SIZES:
        placed = _flow_at_size(words, width, size)
        if placed.height <= height:
            break
    return placed


def _flow_at_size(words: list[str], width: float, size: float) -> Flow:
    """Place words of a font size from left to right, in lines of ``width`` inches."""
    # A point, the unit of font sizes, is 1/72 of an inch.
    line_height = _LINE * size / 72
    boxes = []
    x = _GAP
    y = _GAP
    for word in words:
        letters = len(_shorten(word, width, size)) + 0.8
        word_width = letters * _LETTER * size / 72
        is_first = x <= _GAP
        if not is_first and x + word_width > width - _GAP:
            x = _GAP
            y += line_height + _GAP
        boxes.append((x, y, word_width, line_height))
        x += word_width + _GAP
    return Flow(boxes, size, y + line_height + _GAP)


def draw_words(
    axes: 'Axes',
    words: Sequence[str],
    places: Sequence[Box],
    size: float,
    shades: list | np.ndarray,
    top: float,
    width: float,
) -> None:
    """Draw words in boxes.

    Args:
        axes (Axes): Where to draw, in inches from its upper left corner.
        words (Sequence[str]): The words.
        places (Sequence[Box]): The boxes that :func:`flow` has returned.
        size (float): The size of the font that it has returned.
        shades (list | np.ndarray): A color for each box.
        top (float): Inches above the first line.
        width (float): How wide a line is, in inches.
    """
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Rectangle

    for word, box, shade in zip(words, places, shades, strict=True):
        x, y, word_width, line_height = box
        rectangle = Rectangle(
            (x, y + top),
            word_width,
            line_height,
            facecolor=shade,
            edgecolor='.7',
            lw=0.4,
        )
        axes.add_patch(rectangle)
        gray = np.dot(to_rgb(shade), [0.299, 0.587, 0.114])
        color = 'white' if gray < _DARK else 'black'
        axes.text(
            x + word_width / 2,
            y + top + line_height / 2,
            _shorten(word, width, size),
            fontsize=size,
            color=color,
            **_STYLE,
        )


def _shorten(word: str, width: float, size: float) -> str:
    """Return a word, cut and with an ellipsis if it is wider than a line.

    Args:
        word (str): The word.
        width (float): How wide a line is, in inches.
        size (float): The size of the font in points.
    """
    most_letters = int((width - 2 * _GAP) / (_LETTER * size / 72) - 1)
    if len(word) <= most_letters:
        return word
    return f'{word[: most_letters - 1]}…'
