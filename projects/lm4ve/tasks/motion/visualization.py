"""Pictures of scenes: map, history, truth, and K forecasts with probabilities."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import patheffects
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from lm4ve.registry import HOOKS, VISUALIZERS
from lm4ve.tasks.base.pictures import (
    PredictionVisualizationHook,
    PredictionVisualizer,
    save_figure,
    to_image,
)
from lm4ve.tasks.motion.scene import Scene

_LANE, _JUNCTION, _OTHER = '#c8c8c8', '#9db4c8', '#6b6b6b'
#: So many forecasts have their probability beside them.
LABELED = 3
_PAST, _TRUTH, _FORECAST = '#1f4e9c', '#1a8f3c', '#d0452b'


def draw_scene(
    axes,
    scene: Scene,
    trajectories: np.ndarray | None = None,
    probabilities: np.ndarray | None = None,
    extent: float = 45.0,
    labels: bool = True,
) -> None:
    """Draw a scene in its focal frame.

    Args:
        axes (matplotlib.axes.Axes): Where to draw.
        scene (Scene): What to draw.
        trajectories (np.ndarray, optional): ``[K, F, 2]``, city coordinates.
        probabilities (np.ndarray, optional): ``[K]``, with ``trajectories``; those of the
            likeliest three are written above their ends.
        extent (float): Half the side of what is shown, meters.
        labels (bool): Write the probabilities; a small picture has no room for them.
    """
    h = scene.history_steps
    colors = np.where(scene.lane_intersections, _JUNCTION, _LANE)
    lanes = scene.to_local(scene.lanes)
    axes.add_collection(LineCollection(lanes, colors=colors, linewidths=0.8, zorder=1))
    local = scene.to_local(scene.positions)
    for i in np.flatnonzero(scene.valid[:, :h].any(axis=1)):
        if i != scene.focal:
            past = local[i, :h][scene.valid[i, :h]]
            axes.plot(*past.T, '-o', color=_OTHER, lw=1.2, ms=2.5, markevery=[-1], zorder=2)
    points, valid = local[scene.focal], scene.valid[scene.focal]
    future = points[h:][valid[h:]]
    if trajectories is not None:
        lines, p = scene.to_local(np.asarray(trajectories)), np.asarray(probabilities)
        _draw_forecasts(axes, lines, p)
        if labels:
            _label_forecasts(axes, lines, p)
    if len(future):
        # On top of the forecasts, with a white rim: it must never be hidden.
        rim = [patheffects.withStroke(linewidth=3.2, foreground='white')]
        truth = np.concatenate([np.zeros((1, 2)), future])
        axes.plot(*truth.T, color=_TRUTH, lw=1.6, zorder=7, path_effects=rim)
        axes.plot(*truth[-1], '*', color=_TRUTH, ms=9, mec='white', mew=0.6, zorder=8)
    axes.plot(*points[:h][valid[:h]].T, color=_PAST, lw=2.0, zorder=7)
    axes.plot(0, 0, 'o', color=_PAST, ms=4, zorder=8)
    axes.set(xlim=(-extent, extent), ylim=(-extent, extent), aspect='equal', xticks=[], yticks=[])
    _draw_scale(axes, extent)
    axes.set_title(f'{scene.scene_id[-12:]} ({scene.city})', fontsize=7)


def _draw_forecasts(axes, lines: np.ndarray, p: np.ndarray) -> None:
    """Draw forecasts ``[K, F, 2]``, the likelier the darker."""
    for line, q in zip(lines, p, strict=True):
        shade = 0.35 + 0.65 * float(q) / max(float(p.max()), 1e-9)
        line = np.concatenate([np.zeros((1, 2)), line])
        style = dict(color=_FORECAST, lw=1.4, ms=5, alpha=shade, zorder=4)
        axes.plot(*line.T, marker='.', markevery=[-1], **style)


def _label_forecasts(axes, lines: np.ndarray, p: np.ndarray) -> None:
    """Write the probabilities of the likeliest above their ends."""
    best = np.argsort(-p, kind='stable')[:LABELED]
    style = dict(ha='center', va='center', fontsize=7, color=_FORECAST, zorder=9)
    style['bbox'] = dict(pad=0.5, facecolor='white', edgecolor='none', alpha=0.85)
    # From the lowest end to the highest, each a row higher: labels never overlap.
    for row, i in enumerate(best[np.argsort(lines[best, -1, 1], kind='stable')]):
        axes.annotate(
            f'{100 * p[i]:.0f} %',
            lines[i, -1],
            xytext=(0, 14 + 10 * row),
            textcoords='offset points',
            arrowprops=dict(arrowstyle='-', color=_FORECAST, lw=0.5),
            **style,
        )


def _draw_scale(axes, extent: float) -> None:
    """Draw a bar of a round number of meters in the lower left corner."""
    length = 10.0 ** np.floor(np.log10(extent / 2))
    x, y = -0.93 * extent, -0.93 * extent
    axes.plot([x, x + length], [y, y], color='.2', lw=2, solid_capstyle='butt', zorder=9)
    axes.text(x, y + 0.03 * extent, f'{length:g} m', fontsize=6.5, color='.2', zorder=9)


def scene_grid(samples: Sequence[dict], columns: int = 3, extent: float = 45.0) -> Figure:
    """Draw a figure of several scenes.

    Args:
        samples (Sequence[dict]): ``scene``, and optionally ``trajectories`` and
            ``probabilities``, as of :func:`draw_scene`.
        columns (int): Pictures in a row.
        extent (float): See :func:`draw_scene`.
    """
    columns = min(columns, len(samples))
    rows = -(-len(samples) // columns)
    figure = Figure(figsize=(3.0 * columns, 3.2 * rows), dpi=110, layout='constrained')
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes[len(samples) :]:
        ax.axis('off')
    for ax, sample in zip(axes, samples, strict=False):
        forecast = sample.get('trajectories'), sample.get('probabilities')
        draw_scene(ax, sample['scene'], *forecast, extent)
    meanings = dict(history=_PAST, truth=_TRUTH, forecasts=_FORECAST) | {'other agents': _OTHER}
    handles = [axes[0].plot([], [], color=c, label=t)[0] for t, c in meanings.items()]
    figure.legend(handles=handles, loc='outside lower center', ncols=4, fontsize=7, frameon=False)
    return figure


def save_grid(path: str | Path, samples: Sequence[dict], **options) -> None:
    """Write :func:`scene_grid` as a PNG."""
    save_figure(scene_grid(samples, **options), path)


@VISUALIZERS.register_module()
class MotionVisualizer(PredictionVisualizer):
    """MMEngine's visualizer, with its arguments, for motion data samples."""

    def add_datasample(
        self,
        name: str,
        data_sample: dict,
        show: bool = False,
        wait_time: float = 0.0,
        out_file: str | None = None,
        step: int = 0,
        extent: float = 45.0,
    ) -> np.ndarray:
        """Draw a sample; send it to the backends, a file or a window.

        Args:
            name (str): The picture's name.
            data_sample (dict): See :func:`scene_grid`.
            show (bool): Show it in a window, for ``wait_time`` seconds.
            out_file (str, optional): A PNG instead of the backends.
            step (int): Global step.
            extent (float): See :func:`draw_scene`.

        Returns:
            np.ndarray: uint8 RGB.
        """
        image = to_image(scene_grid([data_sample], extent=extent))
        return self.present(name, image, show, wait_time, out_file, step)


@HOOKS.register_module()
class MotionVisualizationHook(PredictionVisualizationHook):
    """Draw forecasts in validation and testing; arguments as of its base."""

    def draw(self, runner, mode: str, number: int, index: int, batch, sample: dict) -> None:
        """Draw a scene and its forecasts, in the file or under the name of the scene."""
        name = sample['scene'].scene_id
        runner.visualizer.add_datasample(f'{mode}_{name}', sample, **self.options(runner, name))
