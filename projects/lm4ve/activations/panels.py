"""One panel of a sheet: what a model was given, or a number a token in its place.

A picture knows how to draw itself and the tokens of one sample into matplotlib axes:
cells over a frame, colours of a cloud's points, of a scene's agents and lanes. Arrays
in, no model and no state of pyplot, so that a training process can draw.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize

from lm4ve.errors import UserError

#: Share of a cell's colour; the rest is the frame in grey, to see what is there.
COVER = 0.85
#: Behind clouds and scenes: both ends of the colour maps can be seen on it.
BACKGROUND = '#c6c6c6'
#: From where clouds are seen, z up; as `lm4ve.tasks.pointcloud.visualization` has it.
_EYE = np.array([1.7, -2.0, 1.3])


@dataclass
class TokenMap:
    """A number for each token of one sample.

    Attributes:
        title (str): What the panel is called: a point's label, or a head.
        module (str): The module's name.
        values (np.ndarray): float64 ``[N]``, NaN at padding.
        grid (tuple[int, ...]): As of :class:`lm4ve.activations.Layout`.
    """

    title: str
    module: str
    values: np.ndarray
    grid: tuple[int, ...]

    def norm(self) -> Normalize:
        """From the smallest to the largest value; of equal ones, around them."""
        known = self.values[np.isfinite(self.values)]
        low, high = (known.min(), known.max()) if known.size else (0.0, 1.0)
        if high <= low:
            margin = abs(low) * 0.05 or 1.0
            low, high = low - margin, high + margin
        return Normalize(low, high)


def _bare(axes: Axes) -> None:
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color='.6', linewidth=0.5)


class Frames:
    """An image, or a clip's frames.

    Args:
        pixels (np.ndarray): uint8 ``[T, H, W, 3]``, RGB; T = 1 for an image.
    """

    caption = ''

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = pixels

    @property
    def times(self) -> int:
        """T, the number of frames."""
        return len(self.pixels)

    @property
    def aspect(self) -> float:
        """Height by width of a panel."""
        return float(np.clip(self.pixels.shape[1] / self.pixels.shape[2], 0.4, 2.5))

    def draw_input(self, axes: Axes, time: int = 0) -> None:
        """Draw a frame."""
        self._show(axes, self.pixels[time])

    def draw_values(
        self, axes: Axes, tokens: TokenMap, colors: str, time: int = 0
    ) -> None:
        """Draw a frame in grey under the tokens' cells.

        Args:
            axes (Axes): Where.
            tokens (TokenMap): With a grid (rows, columns) or (times, rows,
                columns); a frame shows the time that it belongs to.
            colors (str): Name of matplotlib's colour map.
            time (int): Number of the frame.
        """
        grid = tokens.grid if len(tokens.grid) == 3 else (1, *tokens.grid)
        values = tokens.values.reshape(grid)[time * grid[0] // self.times]
        frame = self.pixels[time].astype(np.float64) / 255
        grey = frame @ [0.299, 0.587, 0.114]
        self._show(axes, np.repeat(grey[..., None], 3, axis=-1))
        axes.imshow(
            values,
            cmap=colors,
            norm=tokens.norm(),
            alpha=COVER,
            extent=self._extent(),
            interpolation='nearest',
        )

    def _extent(self) -> tuple[float, ...]:
        height, width = self.pixels.shape[1:3]
        return 0, width, height, 0

    def _show(self, axes: Axes, frame: np.ndarray) -> None:
        # Small pictures keep their pixels; large ones are averaged.
        smooth = 'nearest' if min(frame.shape[:2]) < 64 else 'antialiased'
        axes.imshow(frame, extent=self._extent(), interpolation=smooth)
        axes.set_aspect('equal')
        _bare(axes)


class Cloud:
    """A point cloud and its token groups, seen from one side.

    Args:
        points (np.ndarray): float ``[N, 3]``.
        groups (np.ndarray): int ``[G, S]``, each group's points.
    """

    times, aspect = 1, 1.0
    caption = 'near points are dark'

    def __init__(self, points: np.ndarray, groups: np.ndarray) -> None:
        self.groups = groups
        towards = _EYE / np.linalg.norm(_EYE)
        right = np.cross([0.0, 0.0, 1.0], towards)
        right /= np.linalg.norm(right)
        view = np.stack([right, np.cross(towards, right), towards])
        middle = (points.max(axis=0) + points.min(axis=0)) / 2
        #: Right, up, and towards the eye, ``[N, 3]``, in the points' unit.
        self.seen = (points - middle) @ view.T
        # Far ones first, so that near ones cover them.
        self.order = np.argsort(self.seen[:, 2], kind='stable')

    def point_values(self, values: np.ndarray) -> np.ndarray:
        """``[G]`` to ``[N]``: the mean over a point's groups, NaN without any."""
        if len(values) != len(self.groups):
            raise UserError(f'{len(values)} values for {len(self.groups)} groups.')
        count, total = np.zeros((2, len(self.seen)))
        for group, value in zip(self.groups, values, strict=True):
            group = np.unique(group)
            count[group] += 1
            total[group] += value
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)

    def draw_input(self, axes: Axes, time: int = 0) -> None:
        """Draw the points, near ones dark."""
        self._scatter(axes, self.seen[:, 2], 'Greys', None)

    def draw_values(
        self, axes: Axes, tokens: TokenMap, colors: str, time: int = 0
    ) -> None:
        """Colour the points by their groups; those without one are small, grey."""
        self._scatter(axes, self.point_values(tokens.values), colors, tokens.norm())

    def _scatter(
        self, axes: Axes, values: np.ndarray, colors: str, norm: Normalize | None
    ) -> None:
        if norm is None:
            low, high = values.min(), values.max()
            # Not from white: the far side is to be seen too.
            norm = Normalize(low - 0.6 * (high - low), high)
        known = np.isfinite(values)
        shades = colormaps[colors](norm(values))
        shades[~known] = (0.58, 0.58, 0.58, 1.0)
        size = float(np.clip(4500 / len(values), 2.0, 24.0)) * np.where(known, 1.0, 0.3)
        axes.scatter(
            *self.seen[self.order, :2].T,
            c=shades[self.order],
            s=size[self.order],
            linewidths=0,
        )
        reach = 1.06 * np.abs(self.seen[:, :2]).max()
        axes.set(
            xlim=(-reach, reach),
            ylim=(-reach, reach),
            aspect='equal',
            facecolor=BACKGROUND,
        )
        _bare(axes)


class TrafficScene:
    """Agents and lanes of a traffic scene, in the focal agent's frame.

    Args:
        agents (np.ndarray): float ``[A, H, 2]``, histories, metres; the focal
            agent is the first.
        agents_valid (np.ndarray): bool ``[A, H]``; an agent without any is
            padding.
        lanes (np.ndarray): float ``[L, P, 2]``, metres.
        lane_padding (np.ndarray): bool ``[L]``, True = padding.
        prediction (dict, optional): As of
            :func:`lm4ve.tasks.motion.visualization.draw_scene`: ``scene``, and perhaps
            ``trajectories`` and ``probabilities``.
        extent (float, optional): Half the side of what is shown, metres; default:
            so that agents and forecasts fit, 40 to 60.
    """

    times, aspect = 1, 1.0
    caption = 'past blue, truth green, forecasts red'

    def __init__(
        self,
        agents: np.ndarray,
        agents_valid: np.ndarray,
        lanes: np.ndarray,
        lane_padding: np.ndarray,
        prediction: dict | None = None,
        extent: float | None = None,
    ) -> None:
        self.agents, self.agents_valid = agents, agents_valid
        self.lanes, self.lane_padding = lanes, lane_padding
        self.prediction = prediction
        self.extent = extent or self._fitting_extent()

    def _fitting_extent(self) -> float:
        shown = [self.agents[self.agents_valid]]
        if self.prediction is not None and 'trajectories' in self.prediction:
            shown.append(
                self.prediction['scene']
                .to_local(np.asarray(self.prediction['trajectories']))
                .reshape(-1, 2)
            )
        reach = np.abs(np.concatenate(shown)).max(initial=0.0)
        return float(np.clip(1.1 * reach, 40.0, 60.0))

    def draw_input(self, axes: Axes, time: int = 0) -> None:
        """Draw the map, histories, the truth and the forecasts."""
        if self.prediction is None:
            self._lanes(axes)
            for i in range(len(self.agents)):
                self._agent(axes, i, '#1f4e9c' if i == 0 else '.4')
        else:
            from lm4ve.tasks.motion.visualization import draw_scene

            draw_scene(
                axes,
                self.prediction['scene'],
                self.prediction.get('trajectories'),
                self.prediction.get('probabilities'),
                self.extent,
            )
            axes.set_title('')
            for text in list(axes.texts):  # no room for probabilities
                text.remove()
        self._finish(axes, 'white')

    def draw_values(
        self, axes: Axes, tokens: TokenMap, colors: str, time: int = 0
    ) -> None:
        """Colour agents and lanes; what has no token is thin and white."""
        count = len(self.agents)
        shade, norm = colormaps[colors], tokens.norm()
        self._lanes(axes, tokens.values[count:], lambda v: shade(norm(v)))
        # The focal agent last, on top.
        for i in reversed(range(count)):
            self._agent(axes, i, shade(norm(tokens.values[i])))
        self._finish(axes, BACKGROUND)

    def _lanes(
        self, axes: Axes, values: Sequence[float] = (), shade: Callable | None = None
    ) -> None:
        """Draw lanes, those with large values on top; thin ones without values."""
        kept = np.flatnonzero(~self.lane_padding)
        colors, width = 'white' if shade else '.75', 0.8
        if len(values):
            kept = kept[np.argsort(values[kept], kind='stable')]
            colors, width = shade(values[kept]), 1.6
        axes.add_collection(
            LineCollection(self.lanes[kept], colors=colors, linewidths=width, zorder=1)
        )

    def _agent(self, axes: Axes, i: int, color) -> None:
        valid = self.agents_valid[i]
        if not valid.any():
            return
        path = self.agents[i][valid]
        # A dark rim: an agent stands out from the lane below it.
        axes.plot(*path.T, color='k', lw=3.0, zorder=2, solid_capstyle='round')
        axes.plot(*path.T, color=color, lw=2.0, zorder=2, solid_capstyle='round')
        axes.plot(
            *path[-1],
            'o' if i else 'D',
            color=color,
            ms=5.0 if i else 6.5,
            mec='k',
            mew=0.7,
            zorder=3,
        )

    def _finish(self, axes: Axes, background: str) -> None:
        axes.set(
            xlim=(-self.extent, self.extent),
            aspect='equal',
            ylim=(-self.extent, self.extent),
            facecolor=background,
        )
        _bare(axes)
