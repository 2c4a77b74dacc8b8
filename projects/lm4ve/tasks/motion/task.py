"""What the package asks of motion forecasting: reads, makes up, describes and exports scenes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from torch import Tensor, nn

from lm4ve.draw.file_names import numbered
from lm4ve.errors import UserError, require
from lm4ve.tasks.base.layouts import Layout, Row
from lm4ve.tasks.base.protocol import TaskProtocol
from lm4ve.tasks.base.tested import pipeline_of
from lm4ve.tasks.motion import TASK
from lm4ve.tasks.motion.datasets.argoverse import Argoverse1Reader, Argoverse2Reader
from lm4ve.tasks.motion.made_up import made_up_scene
from lm4ve.tasks.motion.metrics import find_metric
from lm4ve.tasks.motion.transforms.sub_scenes import DETAILED_RANGE, needs_detail
from lm4ve.tasks.motion.visualization import TrafficScene


class MotionProtocol(TaskProtocol):
    """Traffic scenes: a dict of agents and lanes, a token for each of them.

    An exported function maps scenes to trajectories ``[B, Q, K, F, 2]`` and scores
    ``[B, Q, K]``.
    """

    inputs = {
        'agents': 'histories [batch, agents, steps, 2], meters in the focal frame, gaps filled',
        'agents_valid': 'bool [batch, agents, steps], True where an agent was observed',
        'agent_padding': 'bool [batch, agents], True where there is none',
        'lanes': 'center lines [batch, lanes, points, 2], meters in the focal frame',
        'lane_attributes': 'turn (-1 left, 1 right), intersection, control [batch, lanes, 3]',
        'lane_padding': 'bool [batch, lanes], True where there is none',
        'queries': 'int64 [batch, queries]: indices of the agents to forecast',
    }
    outputs = {
        'trajectories': '[batch, queries, modes, future steps, 2], meters in the focal frame',
        'scores': 'logits [batch, queries, modes]',
    }
    axes = {
        **{name: {1: 'agents'} for name in ('agents', 'agents_valid', 'agent_padding')},
        **{name: {1: 'lanes'} for name in ('lanes', 'lane_attributes', 'lane_padding')},
        'queries': {1: 'queries'},
    }

    def read(
        self, source: Any, cfg: Config, pipeline: list[dict], **options: Any
    ) -> dict:
        """Read an Argoverse scene; ``map_dir`` is Argoverse 1's ``map_files``.

        By default it is the next folder of that name above the file.
        """
        if source.suffix.lower() == '.csv':
            maps = options.get('map_dir')
            if not maps:
                maps = _find_map_files(source)
            scene = Argoverse1Reader(source.parent, maps).read(source)
        else:
            reader = Argoverse2Reader(source.parent.parent)
            if needs_detail(pipeline):
                reader = Argoverse2Reader(source.parent.parent, DETAILED_RANGE, True)
            scene = reader.read(source)
        future, _ = scene.future
        steps = len(future)
        forecast_steps = cfg.model.decoder.get('future_steps', steps)
        require(
            steps == forecast_steps,
            f"'{source}' has {steps} steps to forecast, but model.decoder.future_steps="
            f'{forecast_steps}. '
            'Fix: a scene of the data set of the config.',
        )
        return Compose(pipeline)(dict(scene=scene, sample_idx=0))

    def example(self, cfg: Config, number: int = 0, training: bool = False) -> dict:
        """Return a made-up scene of as many steps as the model forecasts."""
        pipeline = pipeline_of(cfg, training)
        is_detailed = needs_detail(pipeline)
        scene = made_up_scene(cfg.model.decoder.future_steps, is_detailed, number)
        return Compose(pipeline)(dict(scene=scene, sample_idx=number))

    def imagine(self, model: Any) -> None:
        if isinstance(model['decoder'].get('regions'), str):
            model['decoder']['regions'] = 'fan'

    def layout(
        self,
        name: str,
        model: nn.Module,
        inputs: dict,
        count: int,
        grid: tuple[int, ...] | None = None,
    ) -> Layout:
        """Place a token for each agent, or for each agent and then each lane.

        Args:
            name (str): Not used: their number tells tokens apart.
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
    ) -> list[TrafficScene]:
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

    def describe(
        self, output: dict, classes: Sequence[str] | None, evaluator: Any
    ) -> dict[str, str]:
        """Return the number of forecasts, the likeliest's probability, and the errors.

        The errors are those of the config's :class:`MotionMetric` for its largest k, and
        only where the future is known.
        """
        if 'trajectories' not in output:
            return {}
        count = len(output['trajectories'])
        likeliest = np.max(output['probabilities'])
        facts = {
            'prediction': f'{count} trajectories, the likeliest at {likeliest:.1%}'
        }
        metric = find_metric(evaluator)
        if metric is None:
            return facts
        scores = metric.score(output)
        if scores:
            k = max(metric.k)
            ade = scores[f'minADE@{k}']
            fde = scores[f'minFDE@{k}']
            facts['against the truth'] = (
                f'minADE@{k} {ade:.2f} m, minFDE@{k} {fde:.2f} m'
            )
        return facts

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

    def tensors(self, model: nn.Module, data: Any) -> tuple[Tensor, ...]:
        require(
            'earlier' not in data['inputs'],
            'A model of sub-scenes (RealMotion) cannot be exported: its inputs are a list of them. '
            'Fix: export a model of whole scenes, such as VectorNet.',
        )
        return tuple(data['inputs'][name] for name in self.inputs)

    def forward(self, model: Any, *tensors: Tensor) -> tuple[Tensor, ...]:
        return model(dict(zip(self.inputs, tensors, strict=True)))


def _find_map_files(path: Path) -> Path:
    """Return the nearest folder ``map_files`` above a file."""
    for folder in path.resolve().parents:
        if (folder / 'map_files').is_dir():
            return folder / 'map_files'
    raise UserError(f"No folder map_files above '{path}'. Fix: name it with --map-dir.")


PROTOCOL = MotionProtocol(TASK)
