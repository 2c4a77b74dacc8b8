"""Cut a scene into sub-scenes that follow each other, as RealMotion sees it.

A sub-scene ends at some step of the history. It has a few steps before as its history,
the steps behind as its future, and the focal agent's pose at its end as its frame. The
last one ends where the scene's history ends, and is the one whose forecast counts.
Equal to the released data set (github.com/fudan-zvg/RealMotion, ``av2_dataset.py``).
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from lm4ve.errors import UserError, check, require
from lm4ve.geometry.plane import rotation
from lm4ve.registry import FUNCTIONS, TRANSFORMS
from lm4ve.tasks.motion.structures import STATIC, STEP, AgentMotion, Scene
from lm4ve.tasks.motion.transforms.scenes import fill_gaps, pad_arrays

#: Agents farther than this from every lane are left out, meters.
LANE_DISTANCE = 5.0
#: Inputs of a sub-scene that are padded and have no mask of their own.
_OTHER_INPUTS = (
    'agents_valid',
    'agent_headings',
    'agent_speeds',
    'agent_kinds',
    'future',
    'future_valid',
    'lanes_valid',
)
#: Meters around a focal agent in which a file's lanes are read, so that they fill a square
#: of +- 150 m, turned in any way.
DETAILED_RANGE = 213.0
#: Steps over which an agent's motion is estimated, and the way that counts as motion.
_WINDOW = 5
_MOVING_METERS = 0.5


def needs_detail(pipeline: Sequence[dict]) -> bool:
    """Return whether a pipeline takes detailed scenes alone.

    Sub-scenes need headings, speeds and kinds of agents, unless these are estimated.
    """
    types = [step['type'] for step in pipeline]
    return 'lm4ve.VectorizeSubScenes' in types and 'lm4ve.EstimateMotion' not in types


@TRANSFORMS.register_module()
class VectorizeSubScenes:
    """Express a scene as sub-scenes, each in the focal agent's frame at its end.

    Args:
        ends (Sequence[int]): The step behind the last one of each sub-scene's history;
            the last is the length of the scene's history. Argoverse 2: 30, 40, 50.
        history_steps (int): H.
        radius (float): Agents farther from the focal one are left out, and lanes with no
            point in the square of +- this many meters. Agents that were not observed at
            the sub-scene's end are left out, too, as are those more than 5 m from all
            lanes.

    Takes ``results['scene']``, which must be detailed, and gives it the heading of the
    last sub-scene; adds ``sub_scenes``, a list of dicts of float32 arrays in meters:

    - ``agents`` ``[A, H, 2]``, the focal one first, gaps filled; ``agents_valid`` bool
      ``[A, H]``; ``agent_headings`` ``[A]`` at the end (radians), ``agent_speeds``
      ``[A, H]`` (m/s), ``agent_kinds`` int64 ``[A]``
    - ``future`` ``[A, F, 2]``; ``future_valid`` bool ``[A, F]``, False for static agents
    - ``lanes`` ``[L, P, 2]``; ``lanes_valid`` bool ``[L, P]``, which points are within
      the square. A scene without lanes gets one of zeros.
    - ``queries`` int64 ``[1]``, the focal agent
    - ``pose`` ``[4]``: time (seconds), heading (radians), x and y (meters from the
      scene's origin, along the city's axes).
    """

    def __init__(
        self,
        ends: Sequence[int] = (30, 40, 50),
        history_steps: int = 30,
        radius: float = 150.0,
    ) -> None:
        check('VectorizeSubScenes.ends', min(ends), least=history_steps)
        self.ends = tuple(ends)
        self.history_steps = history_steps
        self.radius = radius

    def __call__(self, results: dict) -> dict:
        """Add the arrays that the class describes.

        Raises:
            UserError: The scene is not detailed; its lanes do not reach far enough; or
                its history ends elsewhere.
        """
        scene: Scene = results['scene']
        motion = _motion_of(scene)
        field = "VectorizeSubScenes.radius * sqrt(2), bound by the cache's map_range,"
        check(field, self.radius * 2**0.5, most=scene.map_range + 1e-6)
        require(
            self.ends[-1] == scene.history_steps,
            f'VectorizeSubScenes.ends={self.ends} must end at the length of the history, '
            f'{scene.history_steps}.',
        )
        results['sub_scenes'] = [
            self._sub_scene(scene, motion, end) for end in self.ends
        ]
        _, heading, _, _ = _pose(scene, motion, scene.history_steps)
        results['scene'] = replace(scene, heading=heading)
        return results

    def _sub_scene(
        self, scene: Scene, motion: AgentMotion, end: int
    ) -> dict[str, np.ndarray]:
        """Return the arrays of the sub-scene that ends before a step."""
        pose = _pose(scene, motion, end)
        _, heading, *offset = pose
        origin = scene.origin + offset
        turn = rotation(heading)
        lanes, lanes_valid = self._choose_lanes((scene.lanes - origin) @ turn)
        agents = self._choose_agents(scene, end, origin, turn, lanes, lanes_valid)

        length = scene.positions.shape[1] - scene.history_steps + self.history_steps
        steps = slice(end - self.history_steps, end - self.history_steps + length)
        valid = scene.valid[agents, steps]
        local = ((scene.positions[agents, steps] - origin) @ turn).astype(np.float32)
        local = np.where(valid[..., None], local, np.float32(0))
        history, future = np.split(local, [self.history_steps], axis=1)
        history_valid, future_valid = np.split(valid, [self.history_steps], axis=1)
        kinds = motion.kinds[agents]
        last_seen = history_valid[:, -1]
        is_trained = (kinds != STATIC) & last_seen
        headings = wrap(motion.headings[agents, end - 1] - heading)
        return dict(
            agents=fill_gaps(history, history_valid),
            agents_valid=history_valid,
            agent_headings=np.where(last_seen, headings, 0).astype(np.float32),
            agent_speeds=motion.speeds[agents, steps][:, : self.history_steps],
            agent_kinds=kinds.astype(np.int64),
            future=future,
            future_valid=future_valid & is_trained[:, None],
            lanes=lanes,
            lanes_valid=lanes_valid,
            queries=np.zeros(1, dtype=np.int64),
            pose=np.array(pose, dtype=np.float32),
        )

    def _choose_lanes(self, lanes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the lanes that reach into the square, and which points are in it.

        Args:
            lanes (np.ndarray): ``[L, P, 2]``, in the frame of the sub-scene.
        """
        lanes = lanes.astype(np.float32)
        valid: np.ndarray = (np.abs(lanes) < self.radius).all(axis=-1)
        kept = valid.any(axis=-1)
        if not kept.any():
            no_lane = np.zeros((1, *lanes.shape[1:]), np.float32)
            return no_lane, np.zeros(no_lane.shape[:2], dtype=bool)
        return lanes[kept], valid[kept]

    def _choose_agents(
        self,
        scene: Scene,
        end: int,
        origin: np.ndarray,
        turn: np.ndarray,
        lanes: np.ndarray,
        lanes_valid: np.ndarray,
    ) -> np.ndarray:
        """Return the indices of the focal agent and of those near it and near a lane."""
        places = scene.positions[:, end - 1] - origin
        near = np.linalg.norm(places, axis=-1) < self.radius
        kept = near & scene.valid[:, end - 1]
        kept[scene.focal] = False  # it comes first
        others = np.flatnonzero(kept)
        if lanes_valid.any():
            # As released, points beyond the square lie at the origin.
            points = np.where(lanes_valid[..., None], lanes, 0).reshape(-1, 2)
            local = (places[others] @ turn).astype(np.float32)
            distances = torch.cdist(torch.from_numpy(local), torch.from_numpy(points))
            on_road = distances.amin(dim=1) < LANE_DISTANCE
            others = others[on_road.numpy()]
        return np.concatenate([[scene.focal], others])


def _motion_of(scene: Scene) -> AgentMotion:
    """Return what a detailed scene knows of its agents.

    Raises:
        UserError: It is not detailed.
    """
    if scene.motion is None:
        raise UserError(
            f"Scene '{scene.scene_id}' has no headings and speeds of agents. Fix: write the "
            'cache with tools/motion/preprocess.py --detailed (Argoverse 2), or put '
            'lm4ve.EstimateMotion into the pipeline.'
        )
    return scene.motion


def _pose(
    scene: Scene, motion: AgentMotion, end: int
) -> tuple[float, float, float, float]:
    """Return time, heading, x and y of the focal agent at the end of a sub-scene.

    If it was not observed then, its nearest observed step of the history counts.
    """
    observed = np.flatnonzero(scene.valid[scene.focal, : scene.history_steps])
    nearest = observed[np.abs(observed - (end - 1)).argmin()]
    x, y = scene.positions[scene.focal, nearest] - scene.origin
    heading = float(motion.headings[scene.focal, nearest])
    return end * STEP, heading, float(x), float(y)


def wrap(angles: np.ndarray) -> np.ndarray:
    """Bring angles into [-pi, pi)."""
    return (angles + math.pi) % (2 * math.pi) - math.pi


@TRANSFORMS.register_module()
class EstimateMotion:
    """Add headings and speeds of agents, found from their positions.

    For data sets whose files have none, such as Argoverse 1: an agent's speed and
    direction at a step are those of its last five steps. While it moves less than half
    a meter it keeps the direction that it had before; until it has moved at all it has
    the scene's. All agents are vehicles.

    Takes and changes ``results['scene']``.
    """

    def __call__(self, results: dict) -> dict:
        """Add the motion of all agents to the scene."""
        scene: Scene = results['scene']
        filled = fill_gaps(scene.positions, scene.valid)
        steps = np.arange(filled.shape[1])
        begins = np.maximum(steps - _WINDOW, 0)
        ways = filled - filled[:, begins]
        lengths = np.linalg.norm(ways, axis=-1)
        speeds = lengths / (np.maximum(steps - begins, 1) * STEP)
        angles = np.arctan2(ways[..., 1], ways[..., 0])
        moves: np.ndarray = lengths >= _MOVING_METERS
        has_moved = np.logical_or.accumulate(moves, axis=1)
        headings = fill_gaps(angles[..., None], moves)[..., 0]
        headings = np.where(has_moved, headings, scene.heading)
        motion = AgentMotion(
            headings=np.where(scene.valid, headings, 0).astype(np.float32),
            speeds=np.where(scene.valid, speeds, 0).astype(np.float32),
            kinds=np.zeros(len(filled), dtype=np.int8),
        )
        results['scene'] = replace(scene, motion=motion)
        return results


@FUNCTIONS.register_module()
def collate_sub_scenes(samples: list[dict]) -> dict[str, object]:
    """Pad samples of :class:`VectorizeSubScenes` to one batch.

    Returns:
        dict: ``inputs``, a dict of the last sub-scene's tensors: its arrays with a
        first dimension B, ``agent_padding`` bool ``[B, A]`` (True = padding),
        ``lane_padding`` ``[B, L]``, ``query_padding`` ``[B, 1]``, ``known_queries``
        int64 ``[K]`` (:func:`lm4ve.tasks.motion.transforms.scenes.find_known_queries`);
        ``earlier``, a list of such dicts for the sub-scenes before; and
        ``data_samples``, a list of dicts with ``scene``.
    """
    batches = []
    for sub_scenes in zip(*[sample['sub_scenes'] for sample in samples], strict=True):
        inputs = pad_arrays(list(sub_scenes), _OTHER_INPUTS)
        poses = [torch.as_tensor(sub_scene['pose']) for sub_scene in sub_scenes]
        inputs['pose'] = torch.stack(poses)
        batches.append(inputs)
    *earlier, last = batches
    inputs_of_model = dict(last, earlier=earlier)
    data_samples = [dict(scene=sample['scene']) for sample in samples]
    return dict(inputs=inputs_of_model, data_samples=data_samples)
