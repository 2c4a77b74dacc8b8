"""Pictures of samples and of their tokens.

A picture draws its input, and a number for each token in its place, into matplotlib's
axes. Pictures hold arrays, no model. matplotlib is imported when something is drawn.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from lm4ve.draw.figures import without_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize

#: Share of a cell's color; the rest is the frame in gray, to see what is there.
COVER = 0.85
#: Values that differ by less than this share of the largest magnitude count as equal:
#: their rounding errors should not fill the color scale.
_NEARLY_EQUAL = 0.02
#: The margin of a color scale on either side of equal values, as a share of them.
_MARGIN = 0.05
#: Weights of red, green and blue in a gray value (ITU-R BT.601).
_GRAY_WEIGHTS = [0.299, 0.587, 0.114]


@dataclass
class TokenMap:
    """A number for each token of one sample.

    Attributes:
        title (str): What the panel is called: a point's label, or a head.
        module (str): The module's name.
        values (np.ndarray): float64 ``[N]``, NaN at padding.
        grid (tuple[int, ...]): See :class:`lm4ve.tasks.base.layouts.Layout`.
        limits (tuple[float, float], optional): The ends of its color scale; default:
            its smallest and its largest value.
    """

    title: str
    module: str
    values: np.ndarray
    grid: tuple[int, ...]
    limits: tuple[float, float] | None = None

    def norm(self) -> 'Normalize':
        """Return the color scale: from the smallest to the largest value, or its limits.

        Nearly equal values get a wider scale, so that all have about its middle color;
        where all are 0, it reaches from -1 to 1.
        """
        from matplotlib.colors import Normalize

        if self.limits is None:
            low, high = self.ends()
        else:
            low, high = self.limits
        largest = max(abs(low), abs(high))
        if high - low > _NEARLY_EQUAL * largest:
            return Normalize(low, high)
        margin = _MARGIN * largest
        if margin == 0:
            margin = 1.0
        return Normalize(low - margin, high + margin)

    def ends(self) -> tuple[float, float]:
        """Return the smallest and the largest value; 0 and 1 without any."""
        known = self.values[np.isfinite(self.values)]
        if known.size == 0:
            return 0.0, 1.0
        return float(known.min()), float(known.max())


def share_scales(maps: list[TokenMap]) -> None:
    """Give maps one color scale, so that colors compare, if their ranges are alike.

    They are alike where the values of each map fill at least half of the range of all
    maps. Otherwise each map keeps a scale of its own, on which its values differ.
    """
    if not maps:
        return
    ends = np.array([token_map.ends() for token_map in maps])
    low = float(ends.min())
    high = float(ends.max())
    extents = np.diff(ends)
    if (extents >= 0.5 * (high - low)).all():
        for token_map in maps:
            token_map.limits = low, high


class Picture:
    """The picture of one sample; this one has tokens in a grid or a row, and no input.

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

    def draw_input(self, axes: 'Axes', time: int = 0) -> None:
        """Draw what the model was given, at a frame."""
        axes.text(0.5, 0.5, 'not drawn', ha='center', va='center')
        without_ticks(axes)

    def draw_values(
        self, axes: 'Axes', tokens: TokenMap, colors: str, time: int = 0
    ) -> None:
        """Draw the tokens' values in their places.

        Args:
            axes (Axes): Where to draw.
            tokens (TokenMap): The values.
            colors (str): The name of matplotlib's color map.
            time (int): The number of the frame.
        """
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
        self.pixels = pixels
        self.is_clip = is_clip
        self.times = len(pixels)
        _, height, width, _ = pixels.shape
        self.aspect = float(np.clip(height / width, 0.4, 2.5))

    def draw_input(self, axes: 'Axes', time: int = 0) -> None:
        """Draw the frame ``time``."""
        self._show(axes, self.pixels[time])

    def draw_values(
        self, axes: 'Axes', tokens: TokenMap, colors: str, time: int = 0
    ) -> None:
        """Draw a frame in gray, and over it a half-transparent cell for each token's value.

        Args:
            axes (Axes): Where to draw.
            tokens (TokenMap): On a grid (rows, columns), or (times, rows, columns) where
                each time of a token stands for several frames in a row.
            colors (str): The name of matplotlib's color map.
            time (int): The number of the frame.
        """
        grid = tokens.grid
        if len(grid) == 2:
            # An image's tokens are at one time.
            grid = (1, *grid)
        num_token_times = grid[0]
        # The time of the tokens that the frame belongs to.
        token_time = time * num_token_times // self.times
        values = tokens.values.reshape(grid)[token_time]
        gray = (self.pixels[time] / 255) @ _GRAY_WEIGHTS
        self._show(axes, np.repeat(gray[..., None], 3, axis=-1))
        axes.imshow(
            values,
            extent=self._extent(),
            cmap=colors,
            norm=tokens.norm(),
            alpha=COVER,
            interpolation='nearest',
        )

    def _extent(self) -> tuple[float, float, float, float]:
        """Return left, right, bottom and top of a frame, in pixels."""
        height, width = self.pixels.shape[1:3]
        return 0, width, height, 0

    def _show(self, axes: 'Axes', frame: np.ndarray) -> None:
        """Draw a frame ``[H, W, 3]``: small ones keep their pixels, large ones are averaged."""
        is_small = min(frame.shape[:2]) < 64
        interpolation = 'nearest' if is_small else 'antialiased'
        axes.imshow(frame, extent=self._extent(), interpolation=interpolation)
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
    channel_axis = 1 if inputs.dim() == 4 else 2
    pixels = inputs.detach().double().movedim(channel_axis, -1).cpu()
    mean = getattr(preprocessor, 'mean', None)
    std = getattr(preprocessor, 'std', None)
    if mean is not None and std is not None:
        mean = mean.double().cpu().flatten()
        std = std.double().cpu().flatten()
        pixels = pixels * std + mean
    pixels = pixels.round().clamp(0, 255).byte()
    return pixels.expand(*pixels.shape[:-1], 3).numpy()
