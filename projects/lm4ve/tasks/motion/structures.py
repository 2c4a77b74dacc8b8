"""``Scene``: the common form of all data sets, from which models get their inputs.

Agents and lanes in a city's coordinates, with masks for what was not observed,
and the focal agent's pose, in whose frame models compute. Argoverse 1, Argoverse
2 and the simulator differ in their readers alone.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from lm4ve.errors import UserError
from lm4ve.geometry.plane import rotation

#: Seconds between two steps of both Argoverse sets.
STEP = 0.1
#: Points of a lane's center line.
LANE_POINTS = 10
#: The same in a detailed scene (RealMotion).
DETAILED_LANE_POINTS = 20
#: Kinds of agents: vehicle, pedestrian, two-wheeler, static object (RealMotion).
NUM_KINDS = 4
STATIC = 3
#: Steps of the window that gives an agent's heading (mmTransformer).
HEADING_STEPS = 7
#: Meters that this window spans at least.
HEADING_METERS = 2.0
#: The default of a field that is computed from the others.
_COMPUTED: Any = None


class SceneError(UserError):
    """One sequence cannot become a scene: a message, and the kind by which it is counted."""

    def __init__(self, message: str, kind: str | None = None) -> None:
        super().__init__(message)
        if kind is None:
            kind = message
        self.kind = kind


@dataclass
class AgentMotion:
    """What a scene may know of its A agents beside their positions.

    Attributes:
        headings (np.ndarray): float32 ``[A, T]``, radians from the city's x axis; 0
            where not valid.
        speeds (np.ndarray): float32 ``[A, T]``, m/s; 0 where not valid.
        kinds (np.ndarray): int8 ``[A]``, below :data:`NUM_KINDS`.
    """

    headings: np.ndarray
    speeds: np.ndarray
    kinds: np.ndarray


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
            of travel; 20 points where the scene is detailed.
        lane_attributes (np.ndarray): float32 ``[L, 3]``: turn (-1 left, 1 right),
            intersection and traffic control (0 or 1).
        map_range (float): Lanes are complete within this distance (meters) of
            the origin along both axes.
        origin (np.ndarray): float64 ``[2]``, the focal agent's last observed
            position.
        heading (float): Its direction there, radians from the city's x axis.
        motion (AgentMotion, optional): What detailed scenes have beside.
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
    motion: AgentMotion | None = None

    def __post_init__(self) -> None:
        if self.origin is None:
            self.origin = self.positions[self.focal, self.history_steps - 1].copy()
        if self.heading is None:
            history, valid = self.history
            self.heading = heading_of(history, valid, self.lanes)

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
        points = np.asarray(points, dtype=np.float64)
        return points @ rotation(self.heading).T + self.origin


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
    steps = steps[first:]
    velocity = _fit_velocity(steps, points[first:])
    travelled = velocity * (steps[-1] - steps[0])
    if np.linalg.norm(travelled) >= HEADING_METERS / 2:
        return direction_of(velocity)
    if len(lanes) == 0:
        return 0.0
    return _nearest_lane_heading(points[-1], lanes)


def direction_of(vector: np.ndarray) -> float:
    """Return the angle of a vector ``[2]`` from the x axis, radians."""
    x, y = vector
    return float(np.arctan2(y, x))


def _fit_velocity(steps: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Fit a straight line over time to points ``[n, 2]``; return meters a step, ``[2]``."""
    times = steps - steps.mean()
    return times @ points / (times @ times)


def _nearest_lane_heading(point: np.ndarray, lanes: np.ndarray) -> float:
    """Return the direction of the lane segment whose middle is nearest to a point."""
    starts = lanes[:, :-1]
    segments = np.diff(lanes, axis=1)
    distances = np.linalg.norm(starts + segments / 2 - point, axis=-1)
    # A segment of no length, from padding, has no direction.
    distances[np.linalg.norm(segments, axis=-1) < 1e-6] = np.inf
    lane, segment = np.unravel_index(distances.argmin(), distances.shape)
    return direction_of(segments[lane, segment])
