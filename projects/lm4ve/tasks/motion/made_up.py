"""Made-up traffic scenes of the size of Argoverse's.

How many agents and lanes there are differs from scene to scene and is nowhere in a config.
"""

import numpy as np

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

#: A scene of Argoverse, rounded: agents and lanes that a model sees.
AGENTS = 32
LANES = 128


def parallel_lines(along: np.ndarray, count: int) -> np.ndarray:
    """Return lines side by side, ``[count, len(along), 2]`` meters."""
    across = np.linspace(-20, 20, count)[:, None]
    return np.stack(np.broadcast_arrays(along, across), axis=-1)


def made_up_scene(future_steps: int, detailed: bool = False, number: int = 0) -> Scene:
    """Return agents side by side, on parallel lanes; the past is as in either Argoverse set.

    Args:
        future_steps (int): Steps to forecast.
        detailed (bool): Whether it has headings and speeds, and lanes of more points.
        number (int): Which one. Scene 0 has :data:`AGENTS` agents, all observed at each
            step, and :data:`LANES` lanes; the next ones have fewer of both, and some of
            their agents come later.
    """
    reader: type[ArgoverseReader] = Argoverse1Reader
    if future_steps > Argoverse1Reader.future_steps:
        reader = Argoverse2Reader
    steps = reader.history_steps + future_steps
    agents = max(AGENTS - 5 * number, 2)
    lanes = max(LANES - 20 * number, 2)
    first_steps = np.arange(agents) % 3 * number
    last_first_step = reader.history_steps - 2
    valid = np.arange(steps) >= np.minimum(first_steps, last_first_step)[:, None]
    motion = None
    lane_points = LANE_POINTS
    if detailed:
        lane_points = DETAILED_LANE_POINTS
        motion = AgentMotion(
            headings=np.zeros((agents, steps), np.float32),
            speeds=np.full((agents, steps), 0.5 / STEP, np.float32),
            kinds=np.zeros(agents, np.int8),
        )
    return Scene(
        scene_id=f'made up {number}',
        city='PIT',
        track_ids=[str(i) for i in range(agents)],
        positions=parallel_lines(np.arange(steps) * 0.5, agents),
        valid=valid,
        focal=0,
        history_steps=reader.history_steps,
        lanes=parallel_lines(np.linspace(-20, 20, lane_points), lanes),
        lane_attributes=np.zeros((lanes, 3), dtype=np.float32),
        map_range=1000.0,
        motion=motion,
    )
