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
from lm4ve.tasks.motion.transforms import fill_gaps

#: Trajectories ``[K, F, 2]`` in city coordinates and probabilities ``[K]``.
Forecast = tuple[np.ndarray, np.ndarray]


def _straight(scene: Scene, start: np.ndarray, velocity: np.ndarray) -> Forecast:
    times = np.arange(1, len(scene.future[0]) + 1)[:, None] * STEP
    return (start + velocity * times)[None], np.ones(1)


def constant_velocity(scene: Scene, steps: int = 5) -> Forecast:
    """Extrapolate the mean velocity of the last ``steps`` steps. One trajectory."""
    points, valid = scene.history
    seen = np.flatnonzero(valid)
    # Of the observed steps in the window; of the last two if there is one.
    first = min(seen[seen >= seen[-1] - steps][0], seen[-2])
    velocity = (points[seen[-1]] - points[first]) / ((seen[-1] - first) * STEP)
    return _straight(scene, points[seen[-1]], velocity)


def kalman_filter(scene: Scene) -> Forecast:
    """Extrapolate a Kalman filter of position and velocity. One trajectory.

    White acceleration noise; steps without observation are predicted only.
    """
    points, valid = scene.history
    move = np.array([[1.0, STEP], [0.0, 1.0]])
    # Noise of 0.1 m and of 1 m/s^2.
    r, q = 0.1**2, np.array([[STEP**4 / 4, STEP**3 / 2], [STEP**3 / 2, STEP**2]])
    start = np.flatnonzero(valid)[0]
    # Rows: position, velocity; columns: x, y, which share a covariance.
    state, covariance = np.stack([points[start], np.zeros(2)]), np.diag([r, 400.0])
    for t in range(start + 1, len(points)):
        state = move @ state
        covariance = move @ covariance @ move.T + q
        if valid[t]:
            gain = covariance[:, :1] / (covariance[0, 0] + r)
            state = state + gain @ (points[t] - state[0])[None]
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
        known = [s for s in scenes if s.future[1].all()]
        check('the number of training scenes with a whole future', len(known), least=k)
        self.futures = np.stack([s.to_local(s.future[0]) for s in known])
        self.index = NearestNeighbors(n_neighbors=k).fit([self._key(s) for s in known])

    @staticmethod
    def _key(scene: Scene) -> np.ndarray:
        points, valid = scene.history
        return fill_gaps(scene.to_local(points)[None], valid[None]).ravel()

    def __call__(self, scene: Scene) -> Forecast:
        (distances,), (rows,) = self.index.kneighbors(self._key(scene)[None])
        weights = 1 / (distances + 0.1)
        return scene.to_world(self.futures[rows]), weights / weights.sum()
