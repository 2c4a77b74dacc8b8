"""A traffic simulator: a small city, vehicles on its lanes, and noisy observations of them.

Intersections on a distorted grid are joined by curved two-way streets; at each
intersection short lanes join every street's end with every other street's start.
Vehicles follow their lane by the intelligent driver model (Treiber, Hennecke and
Helbing, Physical Review E 62, 2000), slow down for turns and red lights, and choose
a branch at random. Observed tracks are noisy, have gaps, and start late.
"""

from dataclasses import dataclass, field

import numpy as np

from lm4ve.tasks.motion.structures import LANE_POINTS, STEP, resample, rotation

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
#: IDM: acceleration, comfortable braking (m/s^2), time gap (s), gap and car (m).
ACCELERATION, BRAKING, TIME_GAP, MIN_GAP, CAR = 1.8, 2.5, 1.2, 2.0, 4.6
#: Seconds of green for each of a light's two phases.
GREEN = 12.0
#: Vehicles in a city.
VEHICLES = 60
#: How far ahead drivers look, meters.
SIGHT = 60.0
#: Steps between the starts of windows, and focal agents of a window.
STRIDE, PER_WINDOW = 15, 4
#: Noise of a position, meters.
NOISE = 0.04


@dataclass
class Lane:
    """One lane.

    Attributes:
        line (np.ndarray): ``[10, 2]``, meters, in the direction of travel.
        turn (str): 'NONE', 'LEFT' or 'RIGHT'.
        junction (bool): Lies in an intersection, not on a street.
        control (bool): Has a traffic light at its end.
        gate (int): Intersection whose light stands at its end; -1: none.
        phase (int): In which of the light's two phases it may go.
        limit (float): Meters per second.
        successors (list[int]): Ids of the lanes to which it leads.
    """

    line: np.ndarray
    turn: str = 'NONE'
    junction: bool = False
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
        piece = min(int(np.searchsorted(self.at, s, 'right')), len(self.at) - 1)
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
    # Of each intersection: the one at the other end of a street, and the lane's id.
    arriving: list[list[tuple[int, int]]] = [[] for _ in nodes]
    leaving: list[list[tuple[int, int]]] = [[] for _ in nodes]
    for a, (row, column) in enumerate(grid):
        for at in ((row + 1, column), (row, column + 1)):
            if at not in grid:
                continue
            b = grid.index(at)
            middle, limit = (
                _street(rng, nodes[a], nodes[b]),
                float(rng.uniform(*LIMITS)),
            )
            for line, start, end in ((middle, a, b), (middle[::-1], b, a)):
                line = resample(line + OFFSET * sideways(line), 2 * LANE_POINTS - 1)
                # Two segments a direction, as long streets are cut in real maps.
                i, gate = len(lanes), end if lit[end] else -1
                lanes.append(Lane(line[:LANE_POINTS], limit=limit, successors=[i + 1]))
                lanes.append(
                    Lane(
                        line[LANE_POINTS - 1 :],
                        control=lit[end],
                        gate=gate,
                        phase=int(row == at[0]),
                        limit=limit,
                    )
                )
                arriving[end].append((start, i + 1))
                leaving[start].append((end, i))
    for arrivals, departures in zip(arriving, leaving, strict=True):
        for origin, i in arrivals:
            for target, j in departures:
                if origin != target:  # no U-turns
                    _connect(lanes, i, j)
    return lanes


def _bezier(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Return 60 points of a cubic curve by its control points, each ``[2]``."""
    t = np.linspace(0, 1, 60)[:, None]
    return (
        (1 - t) ** 3 * a + 3 * (1 - t) ** 2 * t * b + 3 * (1 - t) * t**2 * c + t**3 * d
    )


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
    return _bezier(
        start, start + third + bends[0] * side, end - third + bends[1] * side, end
    )


def _connect(lanes: list[Lane], i: int, j: int) -> None:
    """Add the lane that leads through an intersection from lane ``i`` to lane ``j``."""
    start, end = lanes[i].line[-1], lanes[j].line[0]
    d0, d1 = start - lanes[i].line[-2], lanes[j].line[1] - end
    d0, d1 = d0 / np.linalg.norm(d0), d1 / np.linalg.norm(d1)
    reach = np.linalg.norm(end - start) * 0.4
    line = resample(_bezier(start, start + reach * d0, end - reach * d1, end))
    angle = np.arctan2(d0[0] * d1[1] - d0[1] * d1[0], d0 @ d1)
    turn = 'NONE' if abs(angle) < 0.7 else ('LEFT' if angle > 0 else 'RIGHT')
    lane = Lane(line, turn, True, lanes[i].control, successors=[j])
    curvature = abs(angle) / np.linalg.norm(np.diff(line, axis=0), axis=-1).sum()
    lane.limit = float(min(lanes[i].limit, np.sqrt(SIDEWAYS / max(curvature, 1e-3))))
    lanes[i].successors.append(len(lanes))
    lanes.append(lane)


@dataclass
class Window:
    """A cut of a simulation, from which a file of a data set is written.

    Attributes:
        city (str): A key of :data:`CITIES`.
        tracks (np.ndarray): ``[A, T, 4]``: x and y with noise (meters), heading
            (radians) and speed (m/s).
        valid (np.ndarray): bool ``[A, T]``.
        focal, sensor (int): Which agent is to be forecast, which carries the
            sensor.
    """

    city: str
    tracks: np.ndarray
    valid: np.ndarray
    focal: int
    sensor: int


@dataclass(slots=True)
class _Vehicle:
    lane: int
    s: float
    speed: float
    wish: float
    route: list[int] = field(default_factory=list)


class Simulation:
    """Vehicles in one city.

    Args:
        city (str): 'PIT' or 'MIA'.
        seed (int): Seed of the traffic.
    """

    def __init__(self, city: str, seed: int) -> None:
        self.lanes = build_city(city)
        self.rng = np.random.default_rng(seed)
        self.time = float(self.rng.uniform(0, 2 * GREEN))
        streets = [i for i, lane in enumerate(self.lanes) if not lane.junction]
        slots = [
            (i, s)
            for i in streets
            for s in np.arange(4.0, self.lanes[i].length - 4.0, 14.0)
        ]
        self.vehicles = []
        for n in self.rng.permutation(len(slots))[:VEHICLES]:
            lane, s = slots[n]
            speed = self.rng.uniform(4, 9)
            self.vehicles.append(
                _Vehicle(lane, s, speed, wish=self.rng.uniform(0.8, 1.15))
            )

    def run(self, steps: int) -> np.ndarray:
        """Simulate: ``[V, steps, 4]``, as the tracks of :class:`Window` without noise."""
        frames = []
        for _ in range(steps):
            self._step()
            frames.append(
                [(*self.lanes[v.lane].pose(v.s), v.speed) for v in self.vehicles]
            )
        return np.array(frames).swapaxes(0, 1)

    def _step(self) -> None:
        self.time += STEP
        order: dict[int, list] = {}
        for v in sorted(self.vehicles, key=lambda v: v.s):
            order.setdefault(v.lane, []).append(v)
        changes = [self._acceleration(v, order) for v in self.vehicles]
        for v, a in zip(self.vehicles, changes, strict=True):
            before, v.speed = v.speed, max(v.speed + a * STEP, 0.0)
            v.s += (before + v.speed) / 2 * STEP
            while v.s > self.lanes[v.lane].length:
                v.s -= self.lanes[v.lane].length
                v.lane = self._route(v, 1).pop(0)

    def _route(self, v: _Vehicle, count: int) -> list[int]:
        """Return the next lanes; branches are chosen at random when first asked for."""
        while len(v.route) < count:
            last = self.lanes[v.route[-1] if v.route else v.lane]
            v.route.append(int(self.rng.choice(last.successors)))
        return v.route

    def _acceleration(self, v: _Vehicle, order: dict[int, list]) -> float:
        here, gap, closing = self.lanes[v.lane], np.inf, 0.0
        wanted = here.limit * v.wish
        if ahead := [other for other in order[v.lane] if other.s > v.s]:
            gap, closing = ahead[0].s - v.s - CAR, v.speed - ahead[0].speed
        distance, number = here.length - v.s, 0
        while distance < SIGHT:
            # A red light is a standing car, unless it is too late to brake.
            if (
                gap == np.inf
                and self._red(here)
                and distance > v.speed**2 / (2 * 4.0) - 1.0
            ):
                gap, closing = distance + MIN_GAP - 1.0, v.speed
            number += 1
            index = self._route(v, number)[number - 1]
            here = self.lanes[index]
            # Slow down in time for the turn: v^2 = u^2 + 2 b d.
            wanted = min(
                wanted, np.sqrt((here.limit * v.wish) ** 2 + 2 * 1.5 * distance)
            )
            if gap == np.inf and order.get(index):
                other = order[index][0]
                gap, closing = distance + other.s - CAR, v.speed - other.speed
            distance += here.length
        return idm(v.speed, wanted, gap, closing)

    def _red(self, lane: Lane) -> bool:
        return (
            lane.gate >= 0
            and int((self.time + lane.gate * 5.0) // GREEN) % 2 != lane.phase
        )


def idm(speed: float, wanted: float, gap: float, closing: float) -> float:
    """Compute the acceleration of the intelligent driver model, m/s^2.

    Args:
        speed, wanted (float): m/s.
        gap (float): To the car ahead, meters; infinite on a free road.
        closing (float): Speed minus that of the car ahead, m/s.
    """
    braking = speed * closing / (2 * np.sqrt(ACCELERATION * BRAKING))
    wish = MIN_GAP + max(0.0, speed * TIME_GAP + braking)
    free = ACCELERATION * (1 - (speed / max(wanted, 0.1)) ** 4)
    return float(
        np.clip(free - ACCELERATION * (wish / max(gap, 0.3)) ** 2, -7.0, ACCELERATION)
    )


def windows(city: str, seed: int, count: int, steps: int, history: int) -> list[Window]:
    """Cut scenes out of a simulation.

    Args:
        city (str): 'PIT' or 'MIA'.
        seed (int): Same seed, same scenes.
        count (int): How many.
        steps, history (int): Steps of a scene, and of its observed part.
    """
    rng = np.random.default_rng([seed, 1])
    simulation = Simulation(city, seed)
    simulation.run(50)  # so that the initial placement no longer matters
    total = steps + STRIDE * (-(-count // PER_WINDOW) - 1)
    tracks = simulation.run(total)
    found: list[Window] = []
    for start in range(0, total - steps + 1, STRIDE):
        cut = tracks[:, start : start + steps]
        # As in Argoverse, agents that do something are worth a forecast.
        moved = np.linalg.norm(cut[:, -1, :2] - cut[:, 0, :2], axis=-1)
        going = np.flatnonzero(moved > 0.15 * steps)
        if len(going) < PER_WINDOW:
            going = np.argsort(-moved)[:PER_WINDOW]
        for focal in rng.permutation(going)[:PER_WINDOW]:
            found.append(_observe(rng, city, cut, int(focal), history))
    return found[:count]


def _observe(rng, city: str, tracks: np.ndarray, focal: int, history: int) -> Window:
    """Simulate the observations of a vehicle near the focal one."""
    positions, (count, steps) = tracks[..., :2], tracks.shape[:2]
    distance = np.linalg.norm(positions - positions[focal], axis=-1)
    sensor = int(np.argsort(distance[:, history - 1])[1])
    valid = np.linalg.norm(positions - positions[sensor], axis=-1) < 60.0
    for n in sorted({*range(count)} - {focal, sensor}):
        if rng.random() < 0.25:  # came into view late
            valid[n, : rng.integers(1, steps // 2)] = False
        if rng.random() < 0.3:  # hidden behind another for a while
            start = rng.integers(0, steps - 5)
            valid[n, start : start + rng.integers(3, max(steps // 4, 4))] = False
    if rng.random() < 0.2:
        valid[focal, : rng.integers(1, history // 3)] = False
    valid[sensor] = True
    valid[focal, history // 3 :] = True
    seen = np.flatnonzero(valid.any(axis=1))
    noisy = tracks[seen]
    noisy[..., :2] += rng.normal(0, NOISE, noisy[..., :2].shape)
    return Window(
        city, noisy, valid[seen], *np.searchsorted(seen, (focal, sensor)).tolist()
    )
