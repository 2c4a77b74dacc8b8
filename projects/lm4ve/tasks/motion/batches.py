"""Synthetic batches from which the cost tool counts a motion model's operations."""

import numpy as np
from mmengine.config import Config
from mmengine.dataset import Compose

from lm4ve.tasks.base.batches import TaskBatches, pipeline_of
from lm4ve.tasks.motion import TASK
from lm4ve.tasks.motion.datasets.argoverse import (
    Argoverse1Reader,
    Argoverse2Reader,
    ArgoverseReader,
)
from lm4ve.tasks.motion.structures import (
    DETAILED_LANE_POINTS,
    LANE_POINTS,
    STEP,
    AgentMotion,
    Scene,
)
from lm4ve.tasks.motion.transforms.sub_scenes import needs_detail

#: A scene of Argoverse, rounded: agents and lanes that a model sees.
AGENTS = 32
LANES = 128


class MotionBatches(TaskBatches):
    """Scenes of 32 agents and 128 lanes, all observed at every step.

    How many there are differs from scene to scene and is nowhere in a config.
    """

    def imagine(self, model: dict) -> None:
        if isinstance(model['decoder'].get('regions'), str):
            model['decoder']['regions'] = 'fan'

    def sample(self, cfg: Config, training: bool) -> dict:
        pipeline = pipeline_of(cfg, training)
        detailed = needs_detail(pipeline)
        scene = made_up_scene(cfg.model.decoder.future_steps, detailed)
        return Compose(pipeline)(dict(scene=scene))


def parallel_lines(along: np.ndarray, count: int) -> np.ndarray:
    """Return lines side by side, ``[count, len(along), 2]`` meters."""
    across = np.linspace(-20, 20, count)[:, None]
    return np.stack(np.broadcast_arrays(along, across), axis=-1)


def made_up_scene(future_steps: int, detailed: bool = False) -> Scene:
    """Return agents side by side, on parallel lanes; the past is as in either Argoverse set."""
    reader: type[ArgoverseReader] = Argoverse1Reader
    if future_steps > Argoverse1Reader.future_steps:
        reader = Argoverse2Reader
    steps = reader.history_steps + future_steps
    motion = None
    lane_points = LANE_POINTS
    if detailed:
        lane_points = DETAILED_LANE_POINTS
        motion = AgentMotion(
            headings=np.zeros((AGENTS, steps), np.float32),
            speeds=np.full((AGENTS, steps), 0.5 / STEP, np.float32),
            kinds=np.zeros(AGENTS, np.int8),
        )
    return Scene(
        scene_id='made up',
        city='PIT',
        track_ids=[str(i) for i in range(AGENTS)],
        positions=parallel_lines(np.arange(steps) * 0.5, AGENTS),
        valid=np.ones((AGENTS, steps), dtype=bool),
        focal=0,
        history_steps=reader.history_steps,
        lanes=parallel_lines(np.linspace(-20, 20, lane_points), LANES),
        lane_attributes=np.zeros((LANES, 3), dtype=np.float32),
        map_range=1000.0,
        motion=motion,
    )


BATCHES = MotionBatches(TASK)
