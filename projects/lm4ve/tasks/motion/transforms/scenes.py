"""From a scene to the input arrays of models, and from samples to a batch.

All is in the focal agent's frame (x ahead, y left, origin at its last observed
position), so that predictions turn and move with the scene.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lm4ve.errors import check
from lm4ve.registry import FUNCTIONS, TRANSFORMS
from lm4ve.tasks.motion.structures import Scene

#: Steps at which an agent must have been observed.
MIN_HISTORY = 4
#: What is padded in a batch -> the name of its mask.
PADDING_MASKS = {
    'agents': 'agent_padding',
    'lanes': 'lane_padding',
    'queries': 'query_padding',
}
#: What is padded alike, and has no mask of its own.
OTHER_INPUTS = ('agents_valid', 'future', 'future_valid', 'lane_attributes')


@TRANSFORMS.register_module()
class VectorizeScene:
    """Choose agents and lanes of a scene and express them in the focal frame.

    Args:
        agent_range (float): Agents farther from the focal one are left out, meters,
            and those observed at fewer than four steps or not at the last.
        lane_range (float): Lanes with no point in the square of +- this many
            meters are left out.
        decode (str): Which agents are decoded, and trained on if their future
            is known: 'focal' or 'all'.

    Takes ``results['scene']``; adds float32 arrays in meters:

    - ``agents`` ``[A, H, 2]``, the focal one first, gaps filled by the nearest
      observed step before (else after); ``agents_valid`` bool ``[A, H]``
    - ``future`` ``[A, F, 2]``, ``future_valid`` bool ``[A, F]``
    - ``lanes`` ``[L, 10, 2]``, ``lane_attributes`` ``[L, 3]``. A scene without
      lanes gets one of zeros, so that there is something to attend to.
    - ``queries`` int64 ``[Q]``, indices of the agents to decode.
    """

    def __init__(
        self,
        agent_range: float = 100.0,
        lane_range: float = 100.0,
        decode: str = 'focal',
    ) -> None:
        check('VectorizeScene.decode', decode, choices=('focal', 'all'))
        self.agent_range = agent_range
        self.lane_range = lane_range
        self.decode = decode

    def __call__(self, results: dict) -> dict:
        """Add the arrays that the class describes.

        Raises:
            UserError: ``lane_range`` reaches beyond the lanes that the cache holds.
        """
        scene: Scene = results['scene']
        # The square may stand on its corner in the city's frame.
        field = "VectorizeScene.lane_range * sqrt(2), bound by the cache's map_range,"
        check(field, self.lane_range * 2**0.5, most=scene.map_range + 1e-6)
        agents = self._choose_agents(scene)
        local = scene.to_local(scene.positions[agents]).astype(np.float32)
        valid = scene.valid[agents]
        history, future = np.split(local, [scene.history_steps], axis=1)
        history_valid, future_valid = np.split(valid, [scene.history_steps], axis=1)
        results['agents'] = fill_gaps(history, history_valid)
        results['agents_valid'] = history_valid
        results['future'] = np.where(future_valid[..., None], future, np.float32(0))
        results['future_valid'] = future_valid
        lanes, attributes = self._choose_lanes(scene)
        results['lanes'] = lanes
        results['lane_attributes'] = attributes
        num_queries = 1 if self.decode == 'focal' else len(agents)
        results['queries'] = np.arange(num_queries)
        return results

    def _choose_agents(self, scene: Scene) -> np.ndarray:
        """Return the indices of the focal agent and of those near it."""
        history = scene.valid[:, : scene.history_steps]
        last = scene.positions[:, scene.history_steps - 1]
        near = np.linalg.norm(last - scene.origin, axis=-1) <= self.agent_range
        kept = near & history[:, -1] & (history.sum(axis=1) >= MIN_HISTORY)
        kept[scene.focal] = False  # it comes first
        return np.concatenate([[scene.focal], np.flatnonzero(kept)])

    def _choose_lanes(self, scene: Scene) -> tuple[np.ndarray, np.ndarray]:
        """Return the lanes near the focal agent, and their attributes."""
        lanes = scene.to_local(scene.lanes).astype(np.float32)
        within = (np.abs(lanes) <= self.lane_range).all(axis=-1)  # each point
        kept = within.any(axis=-1)
        if not kept.any():
            no_lane = np.zeros((1, *scene.lanes.shape[1:]), np.float32)
            return no_lane, np.zeros((1, 3), np.float32)
        return lanes[kept], scene.lane_attributes[kept]


def fill_gaps(positions: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Fill each gap with the last valid position before it; at the start with the first.

    Args:
        positions (np.ndarray): ``[A, T, 2]``.
        valid (np.ndarray): bool ``[A, T]``, at least one True a row.
    """
    steps = np.arange(valid.shape[1])
    last_valid = np.maximum.accumulate(np.where(valid, steps, -1), axis=1)
    first_valid = valid.argmax(axis=1)[:, None]
    source = np.where(last_valid < 0, first_valid, last_valid)
    return np.take_along_axis(positions, source[..., None], axis=1)


@TRANSFORMS.register_module()
class FlipScene:
    """Mirror left and right with a probability (mmTransformer's augmentation).

    Comes after :class:`VectorizeScene`; only for training, since the truth in
    city coordinates stays as it is.

    Args:
        prob (float): Probability of a flip.
    """

    def __init__(self, prob: float = 0.5) -> None:
        self.prob = prob

    def __call__(self, results: dict) -> dict:
        """Change the sign of y, which points left, and exchange left and right turns."""
        if np.random.random() >= self.prob:
            return results
        mirror = np.array([1, -1], dtype=np.float32)
        for key in ('agents', 'future', 'lanes'):
            results[key] = results[key] * mirror
        turns = np.array([-1, 1, 1], dtype=np.float32)
        results['lane_attributes'] = results['lane_attributes'] * turns
        return results


@TRANSFORMS.register_module()
class MaskHistory:
    """Hide the first steps of histories, as if tracks had started late.

    mmTransformer's augmentation masks some of the first 10 steps at random.

    Args:
        steps (int): At most so many of the first steps.
        prob (float): Probability of masking a scene.
    """

    def __init__(self, steps: int = 10, prob: float = 0.5) -> None:
        self.steps = steps
        self.prob = prob

    def __call__(self, results: dict) -> dict:
        """Mark the first 1 to ``steps`` steps as not observed, and fill their positions."""
        if np.random.random() >= self.prob:
            return results
        num_hidden = np.random.randint(1, self.steps + 1)
        observed = results['agents_valid']
        late = observed & (np.arange(observed.shape[1]) >= num_hidden)
        # An agent that would vanish keeps its whole history.
        is_seen_late = late.any(axis=1, keepdims=True)
        results['agents_valid'] = np.where(is_seen_late, late, observed)
        results['agents'] = fill_gaps(results['agents'], results['agents_valid'])
        return results


@FUNCTIONS.register_module()
def collate_scenes(samples: list[dict]) -> dict[str, object]:
    """Pad samples of :class:`VectorizeScene` to one batch.

    Returns:
        dict: ``inputs``, a dict of tensors: ``agents`` ``[B, A, H, 2]``,
        ``agents_valid`` ``[B, A, H]``, ``agent_padding`` bool ``[B, A]`` (True =
        padding), ``future``, ``future_valid``, ``lanes`` ``[B, L, 10, 2]``,
        ``lane_attributes`` ``[B, L, 3]``, ``lane_padding`` ``[B, L]``, ``queries``
        int64 ``[B, Q]``, ``query_padding`` ``[B, Q]``, and ``known_queries`` int64
        ``[K]``, places among the B * Q queries (:func:`find_known_queries`); and
        ``data_samples``, a list of dicts with the scene's name, pose and truth.
    """
    inputs = pad_arrays(samples, OTHER_INPUTS)
    data_samples = [dict(scene=sample['scene']) for sample in samples]
    return dict(inputs=inputs, data_samples=data_samples)


def pad_arrays(samples: list[dict], others: Sequence[str]) -> dict[str, Tensor]:
    """Pad the arrays of samples to one batch of tensors.

    Args:
        samples (list[dict]): Each with the keys of :data:`PADDING_MASKS` and ``others``.
        others (Sequence[str]): What is padded alike, and has no mask of its own.

    Returns:
        dict[str, Tensor]: The keys, the padding masks, and ``known_queries``
        (:func:`find_known_queries`).
    """
    inputs = {}
    for key in (*PADDING_MASKS, *others):
        tensors = [torch.as_tensor(sample[key]) for sample in samples]
        inputs[key] = pad_sequence(tensors, batch_first=True)
    for key, mask in PADDING_MASKS.items():
        sizes = torch.tensor([len(sample[key]) for sample in samples])
        inputs[mask] = torch.arange(inputs[key].shape[1]) >= sizes[:, None]
    inputs['known_queries'] = find_known_queries(inputs)
    return inputs


def find_known_queries(inputs: dict[str, Tensor]) -> Tensor:
    """Find the agents of a batch that are decoded and whose future is known.

    How many there are depends on values. A training step on a GPU would wait for them,
    so the loader finds them on the CPU.

    Args:
        inputs (dict[str, Tensor]): ``future_valid``, ``queries`` and ``query_padding``
            of :func:`collate_scenes`.

    Returns:
        Tensor: int64 ``[K]``, places among the B * Q queries, scene by scene.
    """
    has_future = inputs['future_valid'].any(dim=-1)
    is_known = has_future.gather(1, inputs['queries']) & ~inputs['query_padding']
    return is_known.flatten().nonzero().flatten()
