"""What the cost tool asks the motion task."""

import numpy as np
from mmengine.config import Config
from mmengine.dataset import Compose

from lm4ve.tasks.base.batches import TaskBatches, pipeline_of
from lm4ve.tasks.motion import TASK
from lm4ve.tasks.motion.datasets import argoverse1, argoverse2
from lm4ve.tasks.motion.scene import LANE_POINTS, Scene

#: A scene of Argoverse, rounded: agents and lanes that a model sees.
AGENTS, LANES = 32, 128


class MotionBatches(TaskBatches):
    """Scenes of 32 agents and 128 lanes, all observed at every step.

    How many there are differs from scene to scene and is nowhere in a config.
    """

    def imagine(self, model: dict) -> None:
        if isinstance(model['decoder'].get('regions'), str):
            model['decoder']['regions'] = 'fan'

    def sample(self, cfg: Config, training: bool) -> dict:
        scene = made_up_scene(cfg.model.decoder.future_steps)
        return Compose(pipeline_of(cfg, training))(dict(scene=scene))


def made_up_scene(future_steps: int) -> Scene:
    """Return agents side by side, on parallel lanes; the past is as in either Argoverse set."""
    history = argoverse2.HISTORY_STEPS
    if future_steps < argoverse2.FUTURE_STEPS:
        history = argoverse1.HISTORY_STEPS
    steps = history + future_steps
    places = np.stack(
        np.broadcast_arrays(np.arange(steps) * 0.5, np.linspace(-20, 20, AGENTS)[:, None]), axis=-1
    )
    along = np.linspace(-20, 20, LANE_POINTS)
    lanes = np.stack(np.broadcast_arrays(along, np.linspace(-20, 20, LANES)[:, None]), axis=-1)
    return Scene(
        scene_id='made up',
        city='PIT',
        track_ids=[str(i) for i in range(AGENTS)],
        agent_types=np.zeros(AGENTS, dtype=np.int8),
        positions=places,
        valid=np.ones((AGENTS, steps), dtype=bool),
        focal=0,
        history_steps=history,
        lanes=lanes,
        lane_turns=np.zeros(LANES, dtype=np.int8),
        lane_intersections=np.zeros(LANES, dtype=bool),
        lane_controls=np.zeros(LANES, dtype=bool),
        map_range=1000.0,
    )


BATCHES = MotionBatches(TASK)
