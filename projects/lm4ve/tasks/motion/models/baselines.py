"""Forecasts without training: what a model must beat.

Constant velocity, a Kalman filter and nearest neighbors, as in Argoverse's own
baselines (arXiv 1911.02620, section 5). Each maps a scene to trajectories
in the city's frame, so that the same metric scores them as models.
"""

from collections.abc import Iterable

import numpy as np
from sklearn.neighbors import NearestNeighbors

from lm4ve.errors import check
from lm4ve.tasks.motion.structures import STEP, Scene
from lm4ve.tasks.motion.transforms.scenes import fill_gaps

#: Trajectories ``[K, F, 2]`` in city coordinates and probabilities ``[K]``.
Forecast = tuple[np.ndarray, np.ndarray]


def _straight(scene: Scene, start: np.ndarray, velocity: np.ndarray) -> Forecast:
    """Forecast one straight line, with probability 1."""
    future, _ = scene.future
    times = np.arange(1, len(future) + 1)[:, None] * STEP
    line = start + velocity * times
    return line[None], np.ones(1)


def constant_velocity(scene: Scene, steps: int = 5) -> Forecast:
    """Extrapolate the mean velocity of the last ``steps`` steps. One trajectory."""
    points, valid = scene.history
    observed = np.flatnonzero(valid)
    last = observed[-1]
    first_in_window = observed[observed >= last - steps][0]
    # The window may hold the last step alone.
    first = min(first_in_window, observed[-2])
    seconds = (last - first) * STEP
    velocity = (points[last] - points[first]) / seconds
    return _straight(scene, points[last], velocity)


def kalman_filter(scene: Scene) -> Forecast:
    """Extrapolate a Kalman filter of position and velocity. One trajectory.

    White acceleration noise; steps without observation are predicted only.
    """
    points, valid = scene.history
    move = np.array([[1.0, STEP], [0.0, 1.0]])
    position_noise = 0.1**2  # of 0.1 m
    # Of an acceleration of 1 m/s^2.
    motion_noise = np.array([[STEP**4 / 4, STEP**3 / 2], [STEP**3 / 2, STEP**2]])
    start = np.flatnonzero(valid)[0]
    # Rows: position, velocity; columns: x, y, which share a covariance.
    state = np.stack([points[start], np.zeros(2)])
    covariance = np.diag([position_noise, 400.0])
    for step in range(start + 1, len(points)):
        state = move @ state
        covariance = move @ covariance @ move.T + motion_noise
        if not valid[step]:
            continue
        gain = covariance[:, :1] / (covariance[0, 0] + position_noise)
        error = points[step] - state[0]
        state = state + gain @ error[None]
        covariance = covariance - gain @ covariance[:1]
    return _straight(scene, state[0], state[1])


class NearestNeighbor:
    """Futures of the training scenes whose histories are most alike.

    Histories and futures are compared and carried over in the focal frame.

    Args:
        scenes (Iterable[Scene]): To look up; those without a whole future are
            passed over.
        k (int): Trajectories of a forecast.

    Raises:
        UserError: There are fewer than k scenes with a whole future.
    """

    def __init__(self, scenes: Iterable[Scene], k: int = 6) -> None:
        histories = []
        futures = []
        for scene in scenes:
            future, valid = scene.future
            if valid.all():
                histories.append(_local_history(scene))
                futures.append(scene.to_local(future))
        known = len(futures)
        check('the number of training scenes with a whole future', known, least=k)
        self.futures = np.stack(futures)
        self.index = NearestNeighbors(n_neighbors=k).fit(histories)

    def __call__(self, scene: Scene) -> Forecast:
        """Forecast the futures of the k most similar histories, the closer the likelier."""
        history = _local_history(scene)
        (distances,), (neighbors,) = self.index.kneighbors(history[None])
        trajectories = scene.to_world(self.futures[neighbors])
        weights = 1 / (distances + 0.1)
        return trajectories, weights / weights.sum()


def _local_history(scene: Scene) -> np.ndarray:
    """Return the focal agent's history in its own frame, gaps filled, ``[2 H]``."""
    points, valid = scene.history
    return fill_gaps(scene.to_local(points)[None], valid[None]).ravel()
