"""Draws a point cloud, and the values of its groups."""

from typing import Any

import numpy as np

from lm4ve.draw.figures import BACKGROUND, without_ticks
from lm4ve.draw.pictures import Picture, TokenMap
from lm4ve.draw.solids import Solids, draw_solids, view_axes


class Cloud(Picture):
    """A point cloud and its token groups in 3-D, seen from one side.

    Args:
        points (np.ndarray): float ``[N, 3]``.
        groups (np.ndarray): int ``[G, S]``, each group's points.
    """

    side = 1.9
    caption = 'near points are dark'

    def __init__(self, points: np.ndarray, groups: np.ndarray) -> None:
        self.groups = groups
        middle = (points.max(axis=0) + points.min(axis=0)) / 2
        #: The points in the view: right, up, and towards the eye, ``[N, 3]``, in their unit.
        self.seen = (points - middle) @ view_axes().T

    def point_values(self, values: np.ndarray) -> np.ndarray:
        """Average values ``[G]`` over each point's groups, ``[N]``, NaN without any."""
        # Whether a point belongs to a group, [G, N].
        is_member = np.zeros((len(self.groups), len(self.seen)), dtype=bool)
        np.put_along_axis(is_member, self.groups, True, axis=1)
        count = is_member.sum(axis=0)
        means = values @ is_member / np.maximum(count, 1)
        return np.where(count > 0, means, np.nan)

    def draw_input(self, axes: Any, time: int = 0) -> None:
        """Draw the points, near ones dark; ``time`` is not used, a cloud has no frames."""
        from matplotlib import colormaps

        depth = self.seen[:, 2]
        nearness = (depth - depth.min()) / max(np.ptp(depth), 1e-12)
        # Not from white, so that the far side is visible, too.
        colors = colormaps['Greys']((0.6 + nearness) / 1.6)
        self._draw(axes, colors[:, :3], 1.0)

    def draw_values(
        self, axes: Any, tokens: TokenMap, colors: str, time: int = 0
    ) -> None:
        """Color the points by the values of their groups.

        Points without a value, which are in no group, are small and gray.

        Args:
            axes (Axes): Where to draw.
            tokens (TokenMap): The values, one for each group.
            colors (str): The name of matplotlib's color map.
            time (int): Not used: a cloud has no frames.
        """
        from matplotlib import colormaps

        # matplotlib draws masked values in the color for bad ones.
        values = np.ma.masked_invalid(self.point_values(tokens.values))
        colormap = colormaps[colors].with_extremes(bad='0.58')
        norm = tokens.norm()
        colors_with_alpha = colormap(norm(values))
        sizes = np.where(values.mask, 0.6, 1.0)
        self._draw(axes, colors_with_alpha[:, :3], sizes)

    def _draw(self, axes: Any, colors: np.ndarray, sizes: float | np.ndarray) -> None:
        """Draw the points as balls of colors ``[N, 3]`` and relative sizes."""
        reach = 1.06 * np.abs(self.seen[:, :2]).max()
        if reach == 0:
            # All points are one.
            reach = 1.0
        # The fewer points, the larger.
        radius = reach * np.clip(1 / np.sqrt(len(self.seen)), 0.008, 0.045)
        radii = radius * sizes * np.ones(len(self.seen))
        solids = Solids(self.seen, radii, colors)
        draw_solids(axes, solids, (reach, reach), BACKGROUND)
        without_ticks(axes)
