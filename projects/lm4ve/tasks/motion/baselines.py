"""Forecasts without training: what a model must beat.

Constant velocity, a Kalman filter and nearest neighbors, as in Argoverse's own
baselines (arXiv 1911.02620, section 5). Each takes scenes and gives trajectories
in the city's frame, so that the same metric scores them as models.
"""

from collections.abc import Iterable

import numpy as np
from sklearn.neighbors import NearestNeighbors

from lm4ve.errors import check
from lm4ve.tasks.motion.scene import STEP, Scene
from lm4ve.tasks.motion.transforms import fill_gaps

#: Steps over which velocity is averaged.
VELOCITY_STEPS = 5
#: Noise that the Kalman filter assumes of positions (m) and of acceleration (m/s^2).
POSITION_NOISE, ACCELERATION_NOISE = 0.1, 1.0

#: Trajectories ``[K, F, 2]`` in city coordinates and probabilities ``[K]``.
Forecast = tuple[np.ndarray, np.ndarray]


def _straight(scene: Scene, start: np.ndarray, velocity: np.ndarray) -> Forecast:
    times = np.arange(1, scene.future_steps + 1)[:, None] * STEP
    return (start + velocity * times)[None], np.ones(1)


class ConstantVelocity:
    """The mean velocity of the last steps, kept. One trajectory.

    Args:
        steps (int): How many.
    """

    def __init__(self, steps: int = VELOCITY_STEPS) -> None:
        self.steps = steps

    def __call__(self, scene: Scene) -> Forecast:
        points, valid = scene.history
        seen = np.flatnonzero(valid)
        # Of the observed steps in the window; of the last two if there is one.
        first = seen[seen >= seen[-1] - self.steps][0]
        if first == seen[-1]:
            first = seen[-2]
        velocity = (points[seen[-1]] - points[first]) / ((seen[-1] - first) * STEP)
        return _straight(scene, points[seen[-1]], velocity)


class Kalman:
    """A Kalman filter of position and velocity, extrapolated. One trajectory.

    White acceleration noise; steps without observation are predicted only.

    Args:
        position_noise (float): Standard deviation, meters.
        acceleration_noise (float): m/s^2.
    """

    def __init__(
        self, position_noise: float = POSITION_NOISE, acceleration_noise: float = ACCELERATION_NOISE
    ) -> None:
        self.r = position_noise**2
        self.move = np.array([[1.0, STEP], [0.0, 1.0]])
        self.q = acceleration_noise**2 * np.array(
            [[STEP**4 / 4, STEP**3 / 2], [STEP**3 / 2, STEP**2]]
        )

    def __call__(self, scene: Scene) -> Forecast:
        points, valid = scene.history
        seen = np.flatnonzero(valid)
        # Rows: position, velocity; columns: x, y, which share a covariance.
        state = np.stack([points[seen[0]], np.zeros(2)])
        covariance = np.diag([self.r, 400.0])
        for t in range(seen[0] + 1, len(points)):
            state = self.move @ state
            covariance = self.move @ covariance @ self.move.T + self.q
            if valid[t]:
                gain = covariance[:, :1] / (covariance[0, 0] + self.r)
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
        keys: list[np.ndarray] = []
        futures: list[np.ndarray] = []
        for s in scenes:
            future, valid = s.future
            if valid.all() and len(future):
                keys.append(self._key(s))
                futures.append(s.to_local(future))
        check('the number of training scenes with a whole future', len(keys), least=k)
        self.futures = np.stack(futures)
        self.index = NearestNeighbors(n_neighbors=k).fit(np.stack(keys))

    @staticmethod
    def _key(scene: Scene) -> np.ndarray:
        points, valid = scene.history
        return fill_gaps(scene.to_local(points)[None], valid[None]).ravel()

    def __call__(self, scene: Scene) -> Forecast:
        distances, rows = self.index.kneighbors(self._key(scene)[None])
        weights = 1 / (distances[0] + 0.1)
        return (scene.to_world(self.futures[rows[0]]), weights / weights.sum())
