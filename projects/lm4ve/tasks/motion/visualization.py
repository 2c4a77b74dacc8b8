"""Pictures of scenes: map, history, truth, K forecasts with probabilities, and values of tokens."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lm4ve.draw.figures import BACKGROUND, to_image, without_ticks
from lm4ve.draw.pictures import Picture, TokenMap
from lm4ve.draw.visualizer import PredictionVisualizationHook, PredictionVisualizer
from lm4ve.registry import HOOKS, VISUALIZERS
from lm4ve.tasks.motion.structures import Scene

_LANE = '#c8c8c8'
_JUNCTION = '#9db4c8'
_OTHER = '#6b6b6b'
_PAST = '#1f4e9c'
_TRUTH = '#1a8f3c'
_FORECAST = '#d0452b'
#: What the legend explains.
_LEGEND = {
    'history': _PAST,
    'truth': _TRUTH,
    'forecasts': _FORECAST,
    'other agents': _OTHER,
}


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
    title = f'{scene.scene_id[-12:]} ({scene.city})'
    _draw_lanes(axes, scene)
    _draw_histories(axes, scene)
    if trajectories is not None and probabilities is not None:
        lines = scene.to_local(np.asarray(trajectories))
        _draw_forecasts(axes, lines, np.asarray(probabilities))
        title += f', {100 * np.max(probabilities):.0f} %'
    _draw_truth(axes, scene)
    axes.set(xlim=(-extent, extent), ylim=(-extent, extent), aspect='equal')
    axes.set_title(title, fontsize=7)
    axes.tick_params(labelsize=6)


def _draw_lanes(axes, scene: Scene) -> None:
    """Draw the center lines of lanes, those of intersections in a color of their own."""
    _, in_intersection, _ = scene.lane_attributes.T  # between turn and control
    colors = [_JUNCTION if inside else _LANE for inside in in_intersection > 0]
    lanes = list(scene.to_local(scene.lanes))
    axes.add_collection(LineCollection(lanes, colors=colors, linewidths=0.8))


def _draw_histories(axes, scene: Scene) -> None:
    """Draw the observed steps of each agent, with a dot at the last."""
    steps = slice(scene.history_steps)
    local = scene.to_local(scene.positions)[:, steps]
    valid = scene.valid[:, steps]
    for i in np.flatnonzero(valid.any(axis=1)):
        if i == scene.focal:
            style = dict(color=_PAST, lw=2.0, ms=4, zorder=7)
        else:
            style = dict(color=_OTHER, lw=1.2, ms=2.5, zorder=2)
        x, y = local[i][valid[i]].T
        axes.plot(x, y, '-o', markevery=[-1], **style)


def _draw_forecasts(axes, lines: np.ndarray, probabilities: np.ndarray) -> None:
    """Draw lines ``[K, F, 2]`` of the focal frame from its origin, the likelier the darker."""
    largest = max(float(np.max(probabilities)), 1e-9)
    for line, share in zip(lines, probabilities / largest, strict=True):
        x, y = _from_origin(line)
        alpha = 0.35 + 0.65 * float(share)
        style = dict(color=_FORECAST, lw=1.4, ms=5, alpha=alpha, zorder=4)
        axes.plot(x, y, marker='.', markevery=[-1], **style)


def _draw_truth(axes, scene: Scene) -> None:
    """Draw the known steps of the future on top of the forecasts, so that they hide nothing."""
    future, valid = scene.future
    if not valid.any():
        return
    x, y = _from_origin(scene.to_local(future[valid]))
    style = dict(color=_TRUTH, lw=1.6, ms=8, mec='white', mew=0.6, zorder=8)
    axes.plot(x, y, '-*', markevery=[-1], **style)


def _from_origin(line: np.ndarray) -> np.ndarray:
    """Return x and y of a line of the focal frame that begins at the agent, ``[2, n + 1]``."""
    return np.insert(line, 0, 0, axis=0).T


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
    rows = math.ceil(len(samples) / columns)
    figure = Figure(figsize=(3.0 * columns, 3.2 * rows), dpi=110, layout='constrained')
    for i, sample in enumerate(samples, start=1):
        axes = figure.add_subplot(rows, columns, i)
        draw_scene(
            axes,
            sample['scene'],
            sample.get('trajectories'),
            sample.get('probabilities'),
            extent,
        )
    handles = []
    for label, color in _LEGEND.items():
        handles.append(Line2D([], [], color=color, label=label))
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


class TrafficScene(Picture):
    """Agents and lanes of a traffic scene, in the focal agent's frame.

    Args:
        inputs (dict[str, np.ndarray]): A sample of the batch of
            :func:`lm4ve.tasks.motion.transforms.scenes.collate_scenes`.
        prediction (dict): The model's output for the sample: if it is a forecaster's,
            with ``scene``, ``trajectories`` and ``probabilities``, as in
            :func:`draw_scene`.
    """

    side = 2.1
    caption = 'past blue, truth green, forecasts red'

    def __init__(self, inputs: dict[str, np.ndarray], prediction: dict) -> None:
        valid = inputs['agents_valid'] & ~inputs['agent_padding'][:, None]
        # The numbers of the agents that were observed, in the order of drawing: the focal
        # agent, number 0, is the last and on top.
        self.drawn_agents = np.flatnonzero(valid.any(axis=1))[::-1]
        # The observed positions of each of these agents, [n, 2].
        self.paths = [inputs['agents'][i][valid[i]] for i in self.drawn_agents]
        # Padding included.
        self.num_agents = len(valid)
        self.lanes = inputs['lanes']
        self.kept_lanes = np.flatnonzero(~inputs['lane_padding'])
        self.prediction = prediction

    def draw_input(self, axes: Any, time: int = 0) -> None:
        """Draw the map, histories, the truth and, where a model gave them, the forecasts.

        A prediction holds the scene that it belongs to. The panel stays white for a
        model whose outputs have none. A scene is one picture, so ``time`` is not used.
        """
        if 'scene' in self.prediction:
            draw_scene(
                axes,
                self.prediction['scene'],
                self.prediction.get('trajectories'),
                self.prediction.get('probabilities'),
            )
        self._finish(axes, 'white')

    def draw_values(
        self, axes: Any, tokens: TokenMap, colors: str, time: int = 0
    ) -> None:
        """Color agents and lanes by the values of their tokens.

        A model may give tokens of agents alone: then lanes are thin and white.

        Args:
            axes (matplotlib.axes.Axes): Where to draw.
            tokens (TokenMap): Its values ``[A]`` or ``[A + L]`` are those of all agents,
                then of all lanes, padding included.
            colors (str): The name of the color map.
            time (int): Not used; a scene is one picture.
        """
        style: dict[str, Any] = dict(cmap=colors, norm=tokens.norm())
        agent_values = tokens.values[: self.num_agents]
        lane_values = tokens.values[self.num_agents :]
        self._draw_lanes(axes, lane_values, style)
        self._draw_agents(axes, agent_values[self.drawn_agents], style)
        self._finish(axes, BACKGROUND)

    def _draw_lanes(self, axes: Any, values: np.ndarray, style: dict[str, Any]) -> None:
        """Draw the lanes in the colors of their values ``[L]``, or in white for values ``[0]``."""
        lines = list(self.lanes[self.kept_lanes])
        if len(values) == 0:
            lanes = LineCollection(lines, colors='white', linewidths=0.8)
        else:
            kept = values[self.kept_lanes]
            lanes = LineCollection(lines, array=kept, linewidths=1.6, **style)
        axes.add_collection(lanes)

    def _draw_agents(
        self, axes: Any, values: np.ndarray, style: dict[str, Any]
    ) -> None:
        """Draw each path and a disk at its end, a larger one for the focal agent.

        Args:
            axes (matplotlib.axes.Axes): Where to draw.
            values (np.ndarray): One for each of ``self.paths``.
            style (dict): The color map and its norm.
        """
        paths = LineCollection(
            self.paths, array=values, linewidths=2.5, zorder=2, **style
        )
        axes.add_collection(paths)
        x, y = np.array([path[-1] for path in self.paths]).T
        sizes = np.where(self.drawn_agents == 0, 70, 30)
        axes.scatter(
            x, y, c=values, s=sizes, edgecolors='k', linewidths=0.7, zorder=3, **style
        )

    def _finish(self, axes: Any, background: str) -> None:
        """Show 50 m around the focal agent, without title and ticks."""
        reach = (-50.0, 50.0)  # meters
        axes.set(xlim=reach, ylim=reach, aspect='equal', facecolor=background, title='')
        without_ticks(axes)
