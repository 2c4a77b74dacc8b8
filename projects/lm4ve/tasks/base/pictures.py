"""Pictures of samples, of their tokens and of predictions.

A picture draws its input, and a number for each token in its place, into matplotlib's
axes. Pictures hold arrays, no model, and figures have a canvas of their own: neither a
window nor the state of pyplot is needed, so that a training process can draw.
matplotlib is imported when something is drawn. The visualizer and the hook send
pictures of predictions to MMEngine's backends, to files and to windows, for tasks
without a host's.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.visualization import Visualizer
from torch import Tensor

from lm4ve.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

#: Share of a cell's color; the rest is the frame in gray, to see what is there.
COVER = 0.85
#: Behind clouds and scenes: both ends of the color maps can be seen on it.
BACKGROUND = '#c6c6c6'
#: The direction from clouds towards the eye, z up.
EYE = (1.7, -2.0, 1.3)


@dataclass
class TokenMap:
    """A number for each token of one sample.

    Attributes:
        title (str): What the panel is called: a point's label, or a head.
        module (str): The module's name.
        values (np.ndarray): float64 ``[N]``, NaN at padding.
        grid (tuple[int, ...]): See :class:`lm4ve.tasks.base.analysis.Layout`.
        limits (tuple[float, float], optional): The ends of its color scale; default:
            its smallest and its largest value.
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
        size = max(abs(low), abs(high))
        margin = (size * 0.05 or 1.0) if high - low <= 0.02 * size else 0.0
        return Normalize(low - margin, high + margin)

    def ends(self) -> tuple[float, float]:
        """Return the smallest and the largest value; 0 and 1 without any."""
        known = self.values[np.isfinite(self.values)]
        return (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)


def view_axes() -> np.ndarray:
    """Return the axes of the view from :data:`EYE`, float64 ``[3, 3]``: right, up, towards it.

    ``points @ view_axes().T`` gives the coordinates of points ``[N, 3]`` in the view.
    """
    towards = np.array(EYE) / np.linalg.norm(EYE)
    right = np.cross([0.0, 0.0, 1.0], towards)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(towards, right), towards])


def share_scales(maps: list[TokenMap]) -> None:
    """Give maps of nearly equal values one color scale, so that colors compare.

    They are nearly equal where the values of each map fill at least half of the scale
    that holds all of them.
    """
    if not maps:
        return
    ends = np.array([m.ends() for m in maps])
    low, high = float(ends.min()), float(ends.max())
    if (np.diff(ends) >= 0.5 * (high - low)).all():
        for m in maps:
            m.limits = low, high


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
        self.pixels, self.is_clip, self.times = pixels, is_clip, len(pixels)
        self.aspect = float(np.clip(pixels.shape[1] / pixels.shape[2], 0.4, 2.5))

    def draw_input(self, axes: 'Axes', time: int = 0) -> None:
        self._show(axes, self.pixels[time])

    def draw_values(
        self, axes: 'Axes', tokens: TokenMap, colors: str, time: int = 0
    ) -> None:
        """Draw a frame in gray under the tokens' cells.

        The tokens' grid is (rows, columns) or (times, rows, columns); a frame shows
        the time that it belongs to.
        """
        grid = tokens.grid if len(tokens.grid) == 3 else (1, *tokens.grid)
        values = tokens.values.reshape(grid)[time * grid[0] // self.times]
        gray = self.pixels[time] / 255 @ [0.299, 0.587, 0.114]
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
    return x.round().clamp(0, 255).byte().expand(*x.shape[:-1], 3).numpy()


def without_ticks(axes: 'Axes') -> None:
    """Leave a thin frame of some axes, and nothing else."""
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color='.6', linewidth=0.5)


# ------------------------------------------------------------------ figures and files
def to_image(figure: 'Figure') -> np.ndarray:
    """Return a figure as an RGB image, uint8 ``[height, width, 3]``."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def save_figure(figure: 'Figure', path: str | Path, **options: Any) -> None:
    """Write a figure to a file whose ending selects the format.

    Args:
        figure (Figure): The figure.
        path (str | Path): The file; its folder is created.
        **options: Passed to ``Figure.savefig``.
    """
    with replacing(path) as beside:
        figure.savefig(beside, **options)


def save_picture(image: np.ndarray, path: str | Path) -> None:
    """Write a picture, uint8 ``[H, W, 3]`` RGB, to a file whose ending selects the format."""
    from matplotlib.image import imsave

    with replacing(path) as beside:
        imsave(beside, image)


# ---------------------------------------------------------------------- predictions
class PredictionVisualizer(Visualizer):
    """MMEngine's visualizer, with its arguments, for pictures that are already drawn."""

    def present(
        self,
        name: str,
        image: np.ndarray,
        show: bool = False,
        wait_time: float = 0.0,
        out_file: str | Path | None = None,
        step: int = 0,
    ) -> np.ndarray:
        """Send a picture to the backends, or to a file and a window, and return it.

        Args:
            name (str): The picture's name.
            image (np.ndarray): uint8 ``[H, W, 3]``, RGB.
            show (bool): Show it in a window, for ``wait_time`` seconds.
            wait_time (float): Seconds.
            out_file (str | Path, optional): A PNG instead of the backends.
            step (int): Global step.
        """
        self.set_image(image)
        if show:
            self.show(image, win_name=name, wait_time=wait_time)
        if out_file is None:
            self.add_image(name, image, step=step)
        else:
            save_picture(image, out_file)
        return image


class PredictionVisualizationHook(Hook):
    """Draws every n-th sample in validation and testing. A task implements :meth:`draw`.

    Args:
        enable (bool): Default: off.
        interval (int): Every n-th sample.
        show (bool): Show them in a window, for ``wait_time`` seconds each.
        wait_time (float): Seconds.
        out_dir (str, optional): PNG files here instead of the backends.
        **kwargs: Ignored: other hooks' arguments in an inherited config.
    """

    priority = 'NORMAL'

    def __init__(
        self,
        enable: bool = False,
        interval: int = 500,
        show: bool = False,
        wait_time: float = 0.0,
        out_dir: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.enable, self.interval, self.out_dir = enable, interval, out_dir
        self.shown = dict(show=show, wait_time=wait_time)

    def draw(
        self,
        runner: Runner,
        mode: str,
        number: int,
        index: int,
        batch: Any,
        sample: Any,
    ) -> None:
        """Draw a sample.

        Args:
            runner (Runner): Its visualizer draws.
            mode (str): 'val' or 'test'.
            number (int): The sample's number in the data of this process.
            index (int): Its number in the batch.
            batch (dict): The data loader's batch.
            sample: The model's prediction.
        """
        raise NotImplementedError

    def options(self, runner: Runner, stem: str) -> dict[str, Any]:
        """Return the arguments of :meth:`PredictionVisualizer.present` for a picture."""
        out_file = self.out_dir and str(Path(self.out_dir) / f'{stem}.png')
        return dict(self.shown, out_file=out_file, step=runner.iter)

    def _after_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any, outputs: Any, mode: str
    ) -> None:
        """Draw those samples of a batch that are due; MMEngine calls it after each iteration."""
        if self.enable and mode != 'train':
            loader = runner.val_dataloader if mode == 'val' else runner.test_dataloader
            first = batch_idx * (loader.batch_size or len(outputs))
            for index, sample in enumerate(outputs):
                if (first + index) % self.interval == 0:
                    self.draw(runner, mode, first + index, index, data_batch, sample)
