"""A small city for the traffic simulator: curved streets, crossings, turns.

Intersections on a distorted grid are joined by curved two-way streets; at each
intersection short lanes join every street's end with every other street's start.
"""

from dataclasses import dataclass, field

import numpy as np

from lm4ve.tasks.motion.scene import LANE_POINTS, resample, rotation

#: City -> the seed of its streets, and its corner in meters.
CITIES = dict(PIT=(11, (1500.0, 200.0)), MIA=(12, (300.0, 2400.0)))
#: Intersections along each side of a city, and the meters between them.
SIZE, SPACING = 4, 95.0
#: Distance of a lane from its street's middle, meters.
OFFSET = 1.9
#: Streets end this far from an intersection's middle, meters.
SETBACK = 12.0
#: Speed limits of streets, and the sideways acceleration that drivers accept.
LIMITS, SIDEWAYS = (9.0, 14.0), 2.0


@dataclass
class Lane:
    """One lane.

    Attributes:
        line (np.ndarray): ``[10, 2]``, meters, in the direction of travel.
        turn (str): 'NONE', 'LEFT' or 'RIGHT'.
        junction (int): The intersection in which it lies; -1 on a street.
        control (bool): Has a traffic light at its end.
        gate (int): Intersection whose light stands at its end; -1: none.
        phase (int): In which of the light's two phases it may go.
        limit (float): Meters per second.
        successors (list[int]): Ids of the lanes to which it leads.
    """

    line: np.ndarray
    turn: str = 'NONE'
    junction: int = -1
    control: bool = False
    gate: int = -1
    phase: int = 0
    limit: float = 12.0
    successors: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        steps = np.linalg.norm(np.diff(self.line, axis=0), axis=-1)
        self.at = np.concatenate([[0.0], np.cumsum(steps)])
        self.length = self.at[-1]

    def pose(self, s: float) -> tuple[float, float, float]:
        """Return the position x, y (meters) and heading (radians) after ``s`` meters."""
        x, y = (np.interp(s, self.at, axis) for axis in self.line.T)
        piece = min(np.searchsorted(self.at, s, 'right'), len(self.at) - 1)
        ahead = self.line[piece] - self.line[piece - 1]
        return x, y, np.arctan2(ahead[1], ahead[0])


def build_city(city: str) -> list[Lane]:
    """Make one of :data:`CITIES`, always the same; a lane's id is its index."""
    seed, corner = CITIES[city]
    rng = np.random.default_rng(seed)
    grid = list(np.ndindex(SIZE, SIZE))
    nodes = [np.array(at) * SPACING + rng.uniform(-14, 14, 2) for at in grid]
    turn = rotation(rng.uniform(0, 2 * np.pi))
    nodes = [turn @ node + corner for node in nodes]
    lit = [bool(rng.random() < 0.6) for _ in nodes]
    lanes: list[Lane] = []
    arriving, leaving = ([[] for _ in nodes] for _ in range(2))
    for a, (row, column) in enumerate(grid):
        for at in ((row + 1, column), (row, column + 1)):
            if at not in grid:
                continue
            b = grid.index(at)
            middle, limit = _street(rng, nodes[a], nodes[b]), float(rng.uniform(*LIMITS))
            for line, start, end in ((middle, a, b), (middle[::-1], b, a)):
                line = resample(line + OFFSET * sideways(line), 2 * LANE_POINTS - 1)
                # Two segments a direction, as long streets are cut in real maps.
                i, gate = len(lanes), end if lit[end] else -1
                light = dict(control=lit[end], gate=gate, phase=int(row == at[0]))
                lanes.append(Lane(line[:LANE_POINTS], limit=limit, successors=[i + 1]))
                lanes.append(Lane(line[LANE_POINTS - 1 :], limit=limit, **light))
                arriving[end].append((start, i + 1))
                leaving[start].append((end, i))
    for node in range(len(nodes)):
        for origin, i in arriving[node]:
            for target, j in leaving[node]:
                if origin != target:  # no U-turns
                    _connect(lanes, i, j, node)
    return lanes


def _bezier(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Return 60 points of a cubic curve by its control points, each ``[2]``."""
    t = np.linspace(0, 1, 60)[:, None]
    return (1 - t) ** 3 * a + 3 * (1 - t) ** 2 * t * b + 3 * (1 - t) * t**2 * c + t**3 * d


def sideways(line: np.ndarray) -> np.ndarray:
    """Return unit vectors to the right of a line's direction, ``[n, 2]``."""
    ahead = np.gradient(line, axis=0)
    ahead /= np.linalg.norm(ahead, axis=-1, keepdims=True)
    return np.stack([ahead[:, 1], -ahead[:, 0]], axis=-1)


def _street(rng: np.random.Generator, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Draw the middle line of a street between two intersections."""
    ahead = (end - start) / np.linalg.norm(end - start)
    side = np.array([ahead[1], -ahead[0]])
    start, end = start + SETBACK * ahead, end - SETBACK * ahead
    third = (end - start) / 3
    bends = rng.normal(0, 9, 2)
    return _bezier(start, start + third + bends[0] * side, end - third + bends[1] * side, end)


def _connect(lanes: list[Lane], i: int, j: int, junction: int) -> None:
    """Add the lane that leads through an intersection from lane ``i`` to lane ``j``."""
    start, end = lanes[i].line[-1], lanes[j].line[0]
    d0, d1 = start - lanes[i].line[-2], lanes[j].line[1] - end
    d0, d1 = d0 / np.linalg.norm(d0), d1 / np.linalg.norm(d1)
    reach = np.linalg.norm(end - start) * 0.4
    line = resample(_bezier(start, start + reach * d0, end - reach * d1, end))
    angle = np.arctan2(d0[0] * d1[1] - d0[1] * d1[0], d0 @ d1)
    turn = 'NONE' if abs(angle) < 0.7 else ('LEFT' if angle > 0 else 'RIGHT')
    lane = Lane(line, turn, junction, lanes[i].control, successors=[j])
    curvature = abs(angle) / np.linalg.norm(np.diff(line, axis=0), axis=-1).sum()
    lane.limit = float(min(lanes[i].limit, np.sqrt(SIDEWAYS / max(curvature, 1e-3))))
    lanes[i].successors.append(len(lanes))
    lanes.append(lane)
