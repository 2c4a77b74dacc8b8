"""``Scene``: the common form of all data sets, from which models get their inputs.

Agents and lanes in a city's coordinates, with masks for what was not observed,
and the focal agent's pose, in whose frame models compute. Argoverse 1, Argoverse
2 and the simulator differ in their readers alone.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from lm4ve.errors import UserError

#: Seconds between two steps of both Argoverse sets.
STEP = 0.1
#: Points of a lane's center line.
LANE_POINTS = 10
#: Steps and meters of the window that gives an agent's heading (mmTransformer).
HEADING_STEPS, HEADING_METERS = 7, 2.0
# The default of a field that is computed from the others.
_COMPUTED: Any = None


class SceneError(UserError):
    """One sequence cannot become a scene: a message, and the kind by which it is counted."""

    def __init__(self, message: str, kind: str | None = None) -> None:
        super().__init__(message)
        self.kind = kind or message


@dataclass
class Scene:
    """One traffic scene of A agents, T steps and L lanes.

    Attributes:
        scene_id (str): Its name in the data set.
        city (str): City of the map, for example 'PIT' or 'austin'.
        track_ids (list[str]): ``[A]``, names of the agents.
        positions (np.ndarray): float64 ``[A, T, 2]``, meters in the city's
            frame; 0 where not valid.
        valid (np.ndarray): bool ``[A, T]``, whether the agent was observed.
        focal (int): Index of the agent to forecast.
        history_steps (int): H; steps H to T are the future (all invalid in test
            sets).
        lanes (np.ndarray): float64 ``[L, 10, 2]``, center lines in the direction
            of travel.
        lane_attributes (np.ndarray): float32 ``[L, 3]``: turn (-1 left, 1 right),
            intersection and traffic control (0 or 1).
        map_range (float): Lanes are complete within this distance (meters) of
            the origin along both axes.
        origin (np.ndarray): float64 ``[2]``, the focal agent's last observed
            position.
        heading (float): Its direction there, radians from the city's x axis.
    """

    scene_id: str
    city: str
    track_ids: list[str]
    positions: np.ndarray
    valid: np.ndarray
    focal: int
    history_steps: int
    lanes: np.ndarray
    lane_attributes: np.ndarray
    map_range: float
    origin: np.ndarray = _COMPUTED
    heading: float = _COMPUTED

    def __post_init__(self) -> None:
        if self.origin is None:
            self.origin = self.positions[self.focal, self.history_steps - 1].copy()
        if self.heading is None:
            self.heading = heading_of(*self.history, self.lanes)

    @property
    def history(self) -> tuple[np.ndarray, np.ndarray]:
        """The focal agent's positions ``[H, 2]`` (city's frame) and bool ``[H]``, valid."""
        steps = slice(self.history_steps)
        return self.positions[self.focal, steps], self.valid[self.focal, steps]

    @property
    def future(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the same for the steps to be forecast, ``[F, 2]`` and bool ``[F]``."""
        steps = slice(self.history_steps, None)
        return self.positions[self.focal, steps], self.valid[self.focal, steps]

    def to_local(self, points: np.ndarray) -> np.ndarray:
        """Transform city coordinates ``[..., 2]`` to the focal frame (x ahead, y left)."""
        return (points - self.origin) @ rotation(self.heading)

    def to_world(self, points: np.ndarray) -> np.ndarray:
        """Transform the focal frame ``[..., 2]`` to city coordinates, float64."""
        return (
            np.asarray(points, dtype=np.float64) @ rotation(self.heading).T
            + self.origin
        )


def rotation(angle: float) -> np.ndarray:
    """Return the matrix that turns column vectors by ``angle``, ``[2, 2]``."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s], [s, c]])


def heading_of(history: np.ndarray, valid: np.ndarray, lanes: np.ndarray) -> float:
    """Estimate the direction in which an agent moves at the end of its history, radians.

    A straight line over time is fitted to the last 7 observed points, or to as
    many more as it takes to span 2 m (mmTransformer's preprocessing; fitted over
    time, not y over x, so that it turns with the frame). An agent that stands
    has the direction of the nearest lane; where there is no lane, 0.

    Args:
        history (np.ndarray): ``[H, 2]``, meters.
        valid (np.ndarray): bool ``[H]``, at least two are True.
        lanes (np.ndarray): ``[L, P, 2]``.
    """
    steps = np.flatnonzero(valid)
    points = history[steps]
    first = max(len(points) - HEADING_STEPS, 0)
    while first > 0 and np.linalg.norm(points[-1] - points[first]) < HEADING_METERS:
        first -= 1
    times = steps[first:] - steps[first:].mean()
    velocity = times @ points[first:] / (times @ times)
    travelled = velocity * (steps[-1] - steps[first])
    if np.linalg.norm(travelled) >= HEADING_METERS / 2:
        return float(np.arctan2(*velocity[::-1]))
    if len(lanes) == 0:
        return 0.0
    start, ahead = lanes[:, :-1], np.diff(lanes, axis=1)
    distances = np.linalg.norm(start + ahead / 2 - points[-1], axis=-1)
    distances[np.linalg.norm(ahead, axis=-1) < 1e-6] = np.inf
    lane, piece = np.unravel_index(distances.argmin(), distances.shape)
    return float(np.arctan2(*ahead[lane, piece, ::-1]))


def resample(line: np.ndarray, count: int = LANE_POINTS) -> np.ndarray:
    """Space points equally by arc length, ends included: ``[n, D] -> [count, D]``.

    A line of one point, or of no length, is repeated.
    """
    line = np.asarray(line, dtype=np.float64)
    lengths = np.linalg.norm(np.diff(line, axis=0), axis=-1)
    keep = np.concatenate([[True], lengths > 0])
    line, at = line[keep], np.concatenate([[0.0], np.cumsum(lengths)])[keep]
    wanted = np.linspace(0, at[-1], count)
    return np.stack([np.interp(wanted, at, c) for c in line.T], axis=-1)
