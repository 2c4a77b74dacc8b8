"""A room with a number for each of its objects, and the words of situation and question."""

import textwrap
from typing import TYPE_CHECKING

import numpy as np

from lm4ve.tasks.base.language.words import draw_words, flow
from lm4ve.tasks.base.pictures import Picture, TokenMap, without_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from lm4ve.tasks.rooms.drawing import Room

#: Inches: the most that words below a room take.
_BAND = 1.5


class RoomPicture(Picture):
    """A room from above, and tokens of objects as dots where they stand.

    Objects without a known place (stored features) are squares in the order of the file.

    Args:
        room (Room, optional): None of a model that reads stored objects.
        places (np.ndarray, optional): float ``[K, 3]``, where the objects are.
        words (dict[str, list[str]]): The words of ``situation`` and ``question``.
    """

    side = 2.3

    def __init__(
        self, room: 'Room | None', places: np.ndarray | None, words: dict[str, list[str]]
    ) -> None:
        self.room, self.places, self.words = room, places, words
        self.caption = '\n'.join(textwrap.fill(' '.join(w), 46) for w in words.values())

    def draw_input(self, axes: 'Axes', time: int = 0) -> None:
        """Draw the room with its proposals, and with who asks."""
        if self.room is None:
            self._draw_words(axes, {k: ['white'] * len(v) for k, v in self.words.items()})
            return
        from lm4ve.tasks.rooms.drawing import draw_from_above

        draw_from_above(axes, self.room)

    def draw_values(self, axes: 'Axes', tokens: TokenMap, colors: str, time: int = 0) -> None:
        """Color objects in their places, or words; of a joint sequence, objects alone."""
        from matplotlib import colormaps

        shades = colormaps[colors](tokens.norm()(tokens.values))
        for name, words in self.words.items():
            if f'{name}_layers' in tokens.module and 'object_' not in tokens.module:
                self._draw_words(axes, {name: shades[: len(words)]})
                return
        values = tokens.values[: tokens.grid[0]]
        known = np.isfinite(values)
        if self.room is None or self.places is None:
            self._draw_squares(axes, shades[: len(values)], known)
            return
        from lm4ve.tasks.rooms.drawing import draw_from_above

        draw_from_above(axes, self.room, faded=True)
        limits = axes.get_xlim(), axes.get_ylim()
        # Large values over small ones.
        order = np.argsort(np.where(known, values, -np.inf), kind='stable')
        order = order[known[order]]
        axes.scatter(
            *self.places[order, :2].T,
            c=shades[: len(values)][order],
            s=26,
            linewidths=0.5,
            edgecolors='.25',
            zorder=3,
        )
        axes.set(xlim=limits[0], ylim=limits[1])

    def _draw_squares(self, axes: 'Axes', shades: np.ndarray, known: np.ndarray) -> None:
        from matplotlib.patches import Rectangle

        columns = int(np.ceil(np.sqrt(len(shades))))
        for i in np.flatnonzero(known):
            corner = i % columns + 0.05, i // columns + 0.05
            axes.add_patch(Rectangle(corner, 0.9, 0.9, facecolor=shades[i], edgecolor='.6', lw=0.4))
        axes.set(xlim=(0, columns), ylim=(columns, 0), aspect='equal')
        without_ticks(axes)

    def _draw_words(self, axes: 'Axes', shades: dict) -> None:
        top = 0.0
        for name, colors in shades.items():
            places, size, height = flow(self.words[name], self.side, _BAND)
            draw_words(axes, self.words[name], places, size, colors, top, self.side)
            top += height + 0.1
        axes.set(xlim=(0, self.side), ylim=(self.side, 0), aspect='equal')
        without_ticks(axes)
