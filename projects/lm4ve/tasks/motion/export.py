"""Inputs and outputs of an exported motion model."""

from typing import Any

from torch import Tensor, nn

from lm4ve.errors import require
from lm4ve.tasks.base.export import TaskExport
from lm4ve.tasks.motion import TASK


class MotionExport(TaskExport):
    """Scenes to trajectories ``[B, Q, K, F, 2]`` and scores ``[B, Q, K]``.

    Samples come from the tested data set: a scene consists of too much to be made up.
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

    def tensors(self, model: nn.Module, data: Any) -> tuple[Tensor, ...]:
        require(
            'earlier' not in data['inputs'],
            'A model of sub-scenes (RealMotion) cannot be exported: its inputs are a list of them. '
            'Fix: export a model of whole scenes, such as VectorNet.',
        )
        return tuple(data['inputs'][name] for name in self.inputs)

    def forward(self, model: nn.Module, *tensors: Tensor) -> tuple[Tensor, ...]:
        return model(dict(zip(self.inputs, tensors, strict=True)))


EXPORT = MotionExport(TASK)
