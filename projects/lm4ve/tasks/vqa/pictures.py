"""An image with its words, and a number for each of their tokens."""

import textwrap
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from lm4ve.tasks.base.language.words import draw_words, flow
from lm4ve.tasks.base.pictures import Frames, TokenMap, without_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Inches: the most that words below an image take.
_BAND = 1.2


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
