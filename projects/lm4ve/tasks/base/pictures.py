"""Pictures of a sample and of its tokens, for the sheets of activations.

A picture draws its input, and a number for each token in its place, into matplotlib's axes.
It holds arrays, no model and no state of pyplot, so that a training process can draw.
matplotlib is imported when something is drawn.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize

#: Share of a cell's color; the rest is the frame in gray, to see what is there.
COVER = 0.85
#: Behind clouds and scenes: both ends of the color maps can be seen on it.
BACKGROUND = '#c6c6c6'
#: From where clouds are seen, z up.
EYE = (1.7, -2.0, 1.3)


@dataclass
class TokenMap:
    """A number for each token of one sample.

    Attributes:
        title (str): What the panel is called: a point's label, or a head.
        module (str): The module's name.
        values (np.ndarray): float64 ``[N]``, NaN at padding.
        grid (tuple[int, ...]): See :class:`lm4ve.tasks.base.analysis.Layout`.
        limits (tuple[float, float], optional): The ends of its color scale; default: its
            smallest and its largest value.
    """

    title: str
    module: str
    values: np.ndarray
    grid: tuple[int, ...]
    limits: tuple[float, float] | None = None

    def norm(self) -> 'Normalize':
        """Return the color scale; it is wider than the values where these are nearly equal."""
        from matplotlib.colors import Normalize

        low, high = self.limits or self.ends()
        if high - low <= 0.02 * max(abs(low), abs(high)):
            margin = max(abs(low), abs(high)) * 0.05 or 1.0
            low, high = low - margin, high + margin
        return Normalize(low, high)

    def ends(self) -> tuple[float, float]:
        """Return the smallest and the largest value; 0 and 1 without any."""
        known = self.values[np.isfinite(self.values)]
        return (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)


def seen_from(eye: Sequence[float] = EYE) -> np.ndarray:
    """Return the axes of a view: multiply points ``[N, 3]`` by its transpose.

    Args:
        eye (Sequence[float]): The direction towards the eye; z is up, and not along it.

    Returns:
        np.ndarray: float64 ``[3, 3]``, rows: right, up, and towards the eye.
    """
    towards = np.asarray(eye, dtype=np.float64) / np.linalg.norm(eye)
    right = np.cross([0.0, 0.0, 1.0], towards)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(towards, right), towards])


def share_scales(maps: list[TokenMap]) -> None:
    """Give maps of nearly equal values one color scale, so that colors compare.

    They are nearly equal where the values of each map fill at least half of the scale
    that holds all of them.
    """
    if len(maps) < 2:
        return
    ends = [m.ends() for m in maps]
    low, high = min(e[0] for e in ends), max(e[1] for e in ends)
    if all(e[1] - e[0] >= 0.5 * (high - low) for e in ends):
        for m in maps:
            m.limits = low, high


class Picture(ABC):
    """The picture of one sample.

    Attributes:
        side (float): Width of a panel on a sheet, inches.
        aspect (float): Height by width of a panel.
        times (int): Number of frames.
        is_clip (bool): It is shown as a strip of frames and as a movie.
        caption (str): Stands below the input, to explain its colors.
    """

    side: float = 1.7
    aspect: float = 1.0
    times: int = 1
    is_clip: bool = False
    caption: str = ''

    @abstractmethod
    def draw_input(self, axes: 'Axes', time: int = 0) -> None:
        """Draw what the model was given, at a frame."""

    @abstractmethod
    def draw_values(self, axes: 'Axes', tokens: TokenMap, colors: str, time: int = 0) -> None:
        """Draw the tokens' values in their places.

        Args:
            axes (Axes): Where to draw.
            tokens (TokenMap): The values.
            colors (str): The name of matplotlib's color map.
            time (int): The number of the frame.
        """


class PlainPicture(Picture):
    """Tokens without their input: a grid of two or three dimensions, or one row."""

    def draw_input(self, axes: 'Axes', time: int = 0) -> None:
        axes.text(0.5, 0.5, 'not drawn', ha='center', va='center')
        without_ticks(axes)

    def draw_values(self, axes: 'Axes', tokens: TokenMap, colors: str, time: int = 0) -> None:
        values = tokens.values.reshape(-1, tokens.grid[-1])
        axes.imshow(values, cmap=colors, norm=tokens.norm(), aspect='auto')
        without_ticks(axes)


class Frames(Picture):
    """An image, or a clip's frames.

    Args:
        pixels (np.ndarray): uint8 ``[T, H, W, 3]``, RGB; T = 1 for an image.
        is_clip (bool): The frames are a clip's, even if there is only one.
    """

    def __init__(self, pixels: np.ndarray, is_clip: bool = False) -> None:
        self.pixels, self.is_clip, self.times = pixels, is_clip, len(pixels)
        self.aspect = float(np.clip(pixels.shape[1] / pixels.shape[2], 0.4, 2.5))

    def draw_input(self, axes: 'Axes', time: int = 0) -> None:
        self._show(axes, self.pixels[time])

    def draw_values(self, axes: 'Axes', tokens: TokenMap, colors: str, time: int = 0) -> None:
        """Draw a frame in gray under the tokens' cells.

        The tokens' grid is (rows, columns) or (times, rows, columns); a frame shows
        the time that it belongs to.
        """
        grid = tokens.grid if len(tokens.grid) == 3 else (1, *tokens.grid)
        values = tokens.values.reshape(grid)[time * grid[0] // self.times]
        frame = self.pixels[time].astype(np.float64) / 255
        gray = frame @ [0.299, 0.587, 0.114]
        self._show(axes, np.repeat(gray[..., None], 3, axis=-1))
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

    def _show(self, axes: 'Axes', frame: np.ndarray) -> None:
        # Small pictures keep their pixels; large ones are averaged.
        smooth = 'nearest' if min(frame.shape[:2]) < 64 else 'antialiased'
        axes.imshow(frame, extent=self._extent(), interpolation=smooth)
        axes.set_aspect('equal')
        without_ticks(axes)


def pixels_of(inputs: Tensor, preprocessor: Any) -> np.ndarray:
    """Undo a preprocessor's normalization.

    Args:
        inputs (Tensor): ``[B, 3, H, W]``, ``[B, V, 3, H, W]`` or
            ``[B, V, 3, T, H, W]``; one channel is repeated.
        preprocessor (nn.Module): May have ``mean`` and ``std``.

    Returns:
        np.ndarray: uint8, channels last. They are in the preprocessor's order; where
        it does not convert, in the pipeline's, which is RGB in all data sets that
        leave it so.
    """
    axis = 1 if inputs.dim() == 4 else 2
    x = inputs.detach().double().movedim(axis, -1).cpu()
    mean, std = (getattr(preprocessor, k, None) for k in ('mean', 'std'))
    if mean is not None and std is not None:
        x = x * std.double().cpu().flatten() + mean.double().cpu().flatten()
    if x.shape[-1] == 1:
        x = x.expand(*x.shape[:-1], 3)
    return x.round().clamp(0, 255).byte().numpy()


def without_ticks(axes: 'Axes') -> None:
    """Leave a thin frame of some axes, and nothing else."""
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color='.6', linewidth=0.5)
