"""An image with its words, and a number for each of their tokens."""

import textwrap
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor, nn

from lm4ve.tasks.base.pictures import Frames, TokenMap, without_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Sizes of words in points; the largest that fits is taken.
_SIZES = (10, 9, 8, 7, 6, 5, 4, 3)
#: Of a fixed-width font, by its size: width of a letter and height of a line.
_LETTER, _LINE = 0.602, 1.75
#: Inches: between words, and the most that words below an image take.
_GAP, _BAND = 0.035, 1.2


class ImageAndWords(Frames):
    """An image, and tokens of words as boxes in the order of the text.

    A panel shows the image, the words, or for a joint sequence the image above the
    words.

    Args:
        pixels (np.ndarray): uint8 ``[1, H, W, 3]``, RGB.
        words (list[str]): The text's tokens.
        text (str): The text, which stands below the input.
        joint (bool): Leave room for the words below the image.
    """

    side = 1.9

    def __init__(self, pixels: np.ndarray, words: list[str], text: str, joint: bool) -> None:
        super().__init__(pixels)
        self.words, self.joint = words, joint
        self.image_height = self.side * self.aspect
        if joint:
            self.places, self.size, band = flow(words, self.side, _BAND)
            self.aspect = (self.image_height + band) / self.side
        else:
            self.places, self.size, _ = flow(words, self.side, self.image_height)
            self.caption = textwrap.fill(text, 38)

    def draw_input(self, axes: 'Axes', time: int = 0) -> None:
        """Draw the image; of a joint sequence also the words."""
        super().draw_input(axes, time)
        if self.joint:
            self._draw_words(axes, ['white'] * len(self.words), self.image_height)

    def draw_values(self, axes: 'Axes', tokens: TokenMap, colors: str, time: int = 0) -> None:
        """Color cells of the image, boxes of words, or both."""
        from matplotlib import colormaps

        norm = tokens.norm()
        *grid, count = tokens.grid
        if len(tokens.grid) == 2:
            super().draw_values(axes, tokens, colors, time)
            self._frame(axes)
            return
        values, top = tokens.values[-count:], 0.0
        if grid:
            cells = replace(
                tokens,
                values=tokens.values[:-count],
                grid=tuple(grid),
                limits=(norm.vmin, norm.vmax),
            )
            super().draw_values(axes, cells, colors, time)
            top = self.image_height
        shades = colormaps[colors](norm(values[: len(self.words)]))
        self._draw_words(axes, shades, top)

    def _draw_words(self, axes: 'Axes', shades: list | np.ndarray, top: float) -> None:
        draw_words(axes, self.words, self.places, self.size, shades, top, self.side)
        self._frame(axes)

    def _frame(self, axes: 'Axes') -> None:
        axes.set(xlim=(0, self.side), ylim=(self.side * self.aspect, 0), aspect='equal')
        without_ticks(axes)

    def _extent(self) -> tuple[float, ...]:
        # In inches of the panel, as the words are.
        return 0, self.side, self.image_height, 0


def flow(
    words: list[str], width: float, height: float
) -> tuple[list[tuple[float, float, float, float]], float, float]:
    """Place words line by line, as large as they fit.

    Args:
        words (list[str]): The words.
        width, height (float): The room in inches.

    Returns:
        tuple: A box ``(x, y, width, height)`` for each word, in inches from the upper left
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


def words_of(model: nn.Module, ids: Tensor, padding: Tensor) -> list[list[str]]:
    """Return the tokens of texts ``[B, L]`` as they are read, without padding."""
    tokenizer = model.data_preprocessor.tokenizer
    return [
        [tokenizer.decode([i]).strip() or tokenizer.convert_ids_to_tokens(i) for i in row]
        for row in ([int(i) for i in r[~p]] for r, p in zip(ids, padding, strict=True))
    ]


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
        y += top
        axes.add_patch(Rectangle((x, y), across, height, facecolor=shade, edgecolor='.7', lw=0.4))
        dark = np.dot(to_rgb(shade), [0.299, 0.587, 0.114]) < 0.5
        axes.text(
            x + across / 2,
            y + height / 2,
            _fitting(word, width, size),
            family='monospace',
            fontsize=size,
            color='white' if dark else 'black',
            ha='center',
            va='center_baseline',
            clip_on=True,
            parse_math=False,
        )


def _fitting(word: str, width: float, size: float) -> str:
    """Cut a word that is wider than a line."""
    most = int((width - 2 * _GAP) / (_LETTER * size / 72) - 1)
    return word if len(word) <= most else f'{word[: most - 1]}…'
