"""How the analysis of activations reads, places and draws traffic scenes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.collections import LineCollection
from mmengine.config import Config
from mmengine.dataset import Compose
from torch import nn

from lm4ve.draw.figures import BACKGROUND, without_ticks
from lm4ve.draw.file_names import numbered
from lm4ve.draw.pictures import Picture, TokenMap
from lm4ve.errors import UserError, require
from lm4ve.tasks.base.analysis import Layout, Row, TaskAnalysis
from lm4ve.tasks.motion import TASK
from lm4ve.tasks.motion.datasets.argoverse import Argoverse1Reader, Argoverse2Reader
from lm4ve.tasks.motion.metrics import find_metric
from lm4ve.tasks.motion.transforms.sub_scenes import DETAILED_RANGE, needs_detail
from lm4ve.tasks.motion.visualization import draw_scene


class MotionAnalysis(TaskAnalysis):
    """Traffic scenes: a dict of agents and lanes, a token for each of them."""

    def read_input(
        self, cfg: Config, path: Path, pipeline: list[dict], **options: Any
    ) -> dict:
        """Read an Argoverse scene; ``map_dir`` is Argoverse 1's ``map_files``.

        By default it is the next folder of that name above the file.
        """
        if path.suffix.lower() == '.csv':
            maps = options.get('map_dir')
            if not maps:
                maps = _find_map_files(path)
            scene = Argoverse1Reader(path.parent, maps).read(path)
        else:
            reader = Argoverse2Reader(path.parent.parent)
            if needs_detail(pipeline):
                reader = Argoverse2Reader(path.parent.parent, DETAILED_RANGE, True)
            scene = reader.read(path)
        future, _ = scene.future
        steps = len(future)
        forecast_steps = cfg.model.decoder.get('future_steps', steps)
        require(
            steps == forecast_steps,
            f"'{path}' has {steps} steps to forecast, but model.decoder.future_steps="
            f'{forecast_steps}. '
            'Fix: a scene of the data set of the config.',
        )
        return Compose(pipeline)(dict(scene=scene, sample_idx=0))

    def layout(
        self,
        model: nn.Module,
        inputs: dict,
        count: int,
        grid: tuple[int, ...] | None = None,
    ) -> Layout:
        """Place a token for each agent, or for each agent and then each lane.

        Args:
            model (nn.Module): Not used.
            inputs (dict): The batch, with the padding of agents and lanes.
            count (int): How many tokens a module gave.
            grid (tuple[int, ...], optional): Not used; a scene's tokens have no grid.
        """
        mask = inputs['agent_padding']
        # Some models have agents' tokens alone before lanes join.
        if count != mask.shape[1]:
            mask = torch.cat([mask, inputs['lane_padding']], dim=1)
        return Layout(self.task.name, 0, (mask.shape[1],), mask).fitting(count)

    def attention_row(self, layout: Layout, inputs: dict) -> tuple[Row, str]:
        return inputs['queries'][:, 0], 'focal agent'

    def pictures(
        self, model: nn.Module, inputs: dict, outputs: Sequence[Any], frames: int
    ) -> list['TrafficScene']:
        """Return a picture of each sample of a batch with the model's output for it."""
        arrays = {}
        for name, value in inputs.items():
            if torch.is_tensor(value):
                arrays[name] = value.cpu().numpy()
        scenes = []
        for i, output in enumerate(outputs):
            sample = {name: batch[i] for name, batch in arrays.items()}
            scenes.append(TrafficScene(sample, output))
        return scenes

    def facts(self, output: dict, classes: Sequence[str] | None) -> dict[str, str]:
        """Return the number of forecasts, and the probability of the likeliest."""
        if 'trajectories' not in output:
            return {}
        count = len(output['trajectories'])
        likeliest = np.max(output['probabilities'])
        return {'prediction': f'{count} trajectories, the likeliest at {likeliest:.1%}'}

    def score(self, output: dict, evaluator: Any) -> dict[str, str]:
        """Return the errors of the forecasts by the config's :class:`MotionMetric`.

        They are those of its largest k, and only where the future is known.
        """
        metric = find_metric(evaluator)
        if metric is None or 'trajectories' not in output:
            return {}
        scores = metric.score(output)
        if not scores:
            return {}
        k = max(metric.k)
        ade = scores[f'minADE@{k}']
        fde = scores[f'minFDE@{k}']
        return {'against the truth': f'minADE@{k} {ade:.2f} m, minFDE@{k} {fde:.2f} m'}

    def result(self, output: dict, classes: Sequence[str] | None) -> dict[str, Any]:
        """Return ``trajectories`` ``[K, F, 2]`` in city coordinates, the likeliest first, and
        their ``probabilities`` ``[K]``."""
        return dict(
            scene_id=output['scene'].scene_id,
            trajectories=np.asarray(output['trajectories']),
            probabilities=np.asarray(output['probabilities']),
        )

    def sample_name(self, output: dict, number: int) -> str:
        scene = output.get('scene')
        return numbered(number, None if scene is None else scene.scene_id)


def _find_map_files(path: Path) -> Path:
    """Return the nearest folder ``map_files`` above a file."""
    for folder in path.resolve().parents:
        if (folder / 'map_files').is_dir():
            return folder / 'map_files'
    raise UserError(f"No folder map_files above '{path}'. Fix: name it with --map-dir.")


class TrafficScene(Picture):
    """Agents and lanes of a traffic scene, in the focal agent's frame.

    Args:
        inputs (dict[str, np.ndarray]): A sample of the batch of
            :func:`lm4ve.tasks.motion.transforms.scenes.collate_scenes`.
        prediction (dict): The model's output for the sample: if it is a forecaster's,
            with ``scene``, ``trajectories`` and ``probabilities``, as in
            :func:`lm4ve.tasks.motion.visualization.draw_scene`.
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


ANALYSIS = MotionAnalysis(TASK)
