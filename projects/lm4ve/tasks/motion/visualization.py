"""Pictures of scenes: map, history, truth, and K forecasts with probabilities."""

from collections.abc import Sequence

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lm4ve.draw.figures import to_image
from lm4ve.draw.visualizer import PredictionVisualizationHook, PredictionVisualizer
from lm4ve.registry import HOOKS, VISUALIZERS
from lm4ve.tasks.motion.structures import Scene

_LANE, _JUNCTION, _OTHER = '#c8c8c8', '#9db4c8', '#6b6b6b'
_PAST, _TRUTH, _FORECAST = '#1f4e9c', '#1a8f3c', '#d0452b'


def draw_scene(
    axes,
    scene: Scene,
    trajectories: np.ndarray | None = None,
    probabilities: np.ndarray | None = None,
    extent: float = 45.0,
) -> None:
    """Draw a scene in its focal frame, meters.

    Args:
        axes (matplotlib.axes.Axes): Where to draw.
        scene (Scene): What to draw.
        trajectories (np.ndarray, optional): ``[K, F, 2]``, city coordinates.
        probabilities (np.ndarray, optional): ``[K]``, with ``trajectories``; the
            likelier the darker, and the likeliest is in the title.
        extent (float): Half the side of what is shown, meters.
    """
    colors = np.where(scene.lane_attributes[:, 1] > 0, _JUNCTION, _LANE)
    lanes = list(scene.to_local(scene.lanes))
    axes.add_collection(LineCollection(lanes, colors=colors, linewidths=0.8))
    title = f'{scene.scene_id[-12:]} ({scene.city})'
    local, h = scene.to_local(scene.positions), scene.history_steps
    for i in np.flatnonzero(scene.valid[:, :h].any(axis=1)):
        style = dict(color=_OTHER, lw=1.2, ms=2.5, zorder=2)
        if i == scene.focal:
            style = dict(color=_PAST, lw=2.0, ms=4, zorder=7)
        axes.plot(*local[i, :h][scene.valid[i, :h]].T, '-o', markevery=[-1], **style)
    if trajectories is not None and probabilities is not None:
        p = np.asarray(probabilities) / max(float(np.max(probabilities)), 1e-9)
        for line, q in zip(scene.to_local(np.asarray(trajectories)), p, strict=True):
            style = dict(
                color=_FORECAST, lw=1.4, ms=5, alpha=0.35 + 0.65 * float(q), zorder=4
            )
            axes.plot(
                *np.insert(line, 0, 0, axis=0).T, marker='.', markevery=[-1], **style
            )
        title += f', {100 * np.max(probabilities):.0f} %'
    future = local[scene.focal, h:][scene.valid[scene.focal, h:]]
    if len(future):
        # On top of the forecasts: it must never be hidden.
        style = dict(color=_TRUTH, lw=1.6, ms=8, mec='white', mew=0.6, zorder=8)
        axes.plot(*np.insert(future, 0, 0, axis=0).T, '-*', markevery=[-1], **style)
    axes.set(xlim=(-extent, extent), ylim=(-extent, extent), aspect='equal')
    axes.set_title(title, fontsize=7)
    axes.tick_params(labelsize=6)


def scene_grid(
    samples: Sequence[dict], columns: int = 3, extent: float = 45.0
) -> Figure:
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
    for i, sample in enumerate(samples, start=1):
        axes = figure.add_subplot(rows, columns, i)
        forecast = sample.get('trajectories'), sample.get('probabilities')
        draw_scene(axes, sample['scene'], *forecast, extent=extent)
    meanings = dict(history=_PAST, truth=_TRUTH, forecasts=_FORECAST) | {
        'other agents': _OTHER
    }
    handles = [Line2D([], [], color=c, label=t) for t, c in meanings.items()]
    figure.legend(
        handles=handles, loc='outside lower center', ncols=4, fontsize=7, frameon=False
    )
    return figure


@VISUALIZERS.register_module()
class MotionVisualizer(PredictionVisualizer):
    """MMEngine's visualizer, with its arguments, for motion data samples."""

    def add_datasample(self, name: str, data_sample: dict, **options) -> np.ndarray:
        """Draw a sample; send it to the backends, a file or a window.

        Args:
            name (str): The picture's name.
            data_sample (dict): See :func:`scene_grid`.
            **options: See
                :meth:`lm4ve.draw.visualizer.PredictionVisualizer.present`.

        Returns:
            np.ndarray: uint8 RGB.
        """
        return self.present(name, to_image(scene_grid([data_sample])), **options)


@HOOKS.register_module()
class MotionVisualizationHook(PredictionVisualizationHook):
    """Draw forecasts in validation and testing; arguments as of its base."""

    def draw(
        self, runner, mode: str, number: int, index: int, batch, sample: dict
    ) -> None:
        """Draw a scene and its forecasts, in the file or under the name of the scene."""
        name = sample['scene'].scene_id
        runner.visualizer.add_datasample(
            f'{mode}_{name}', sample, **self.options(runner, name)
        )
