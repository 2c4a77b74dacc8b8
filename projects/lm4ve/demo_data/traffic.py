"""A traffic simulator: a small city, vehicles on its lanes, and noisy observations of them.

Intersections on a distorted grid are joined by curved two-way streets; at each
intersection short lanes join every street's end with every other street's start.
Vehicles follow their lane by the intelligent driver model (Treiber, Hennecke and
Helbing, Physical Review E 62, 2000), slow down for turns and red lights, and choose
a branch at random. Observed tracks are noisy, have gaps, and start late.
"""

import math
from dataclasses import dataclass, field

import numpy as np
from tqdm import tqdm

from lm4ve.geometry.plane import resample, rotation

#: Seconds between two steps, as in both Argoverse sets.
STEP = 0.1
#: Points of a lane's line.
LANE_POINTS = 10
#: City -> the seed of its streets, and its corner in meters.
CITIES = dict(PIT=(11, (1500.0, 200.0)), MIA=(12, (300.0, 2400.0)))
#: Intersections along each side of a city, and meters between them.
SIZE = 4
SPACING = 95.0
#: Distance of a lane from its street's middle, meters.
OFFSET = 1.9
#: Streets end this far from an intersection's middle, meters.
SETBACK = 12.0
#: The lowest and the highest speed limit of a street, m/s.
LIMITS = (9.0, 14.0)
#: The sideways acceleration that drivers accept in a turn, m/s^2.
SIDEWAYS = 2.0
#: The intelligent driver model: acceleration and comfortable braking, m/s^2.
ACCELERATION = 1.8
BRAKING = 2.5
#: Its gaps to the car ahead: seconds, and meters of a standing car.
TIME_GAP = 1.2
MIN_GAP = 2.0
#: Length of a car, meters.
CAR = 4.6
#: A red light is passed where only braking harder than this would stop the car, m/s^2.
HARD_BRAKING = 4.0
#: Braking before a turn, m/s^2.
TURN_BRAKING = 1.5
#: Seconds of green for each of a light's two phases.
GREEN = 12.0
#: Vehicles in a city.
VEHICLES = 60
#: How far ahead drivers look, meters.
SIGHT = 60.0
#: Scenes cut out of one simulation.
PER_SIMULATION = 160
#: Steps between the starts of windows.
STRIDE = 15
#: Focal agents of a window.
PER_WINDOW = 4
#: Noise of a position, meters.
NOISE = 0.04
#: How far the sensors of a vehicle reach, meters.
SENSOR_RANGE = 60.0


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
        # Meters from the start to each point.
        self.at = np.concatenate([[0.0], np.cumsum(steps)])
        self.length = self.at[-1]

    def pose(self, s: float) -> tuple[float, float, float]:
        """Return the position x, y (meters) and heading (radians) after ``s`` meters."""
        x = np.interp(s, self.at, self.line[:, 0])
        y = np.interp(s, self.at, self.line[:, 1])
        end = min(int(np.searchsorted(self.at, s, 'right')), len(self.at) - 1)
        ahead = self.line[end] - self.line[end - 1]
        return x, y, np.arctan2(ahead[1], ahead[0])


def build_city(city: str) -> list[Lane]:
    """Make one of :data:`CITIES`, always the same; a lane's id is its index."""
    seed, corner = CITIES[city]
    rng = np.random.default_rng(seed)
    grid = list(np.ndindex(SIZE, SIZE))
    nodes = [np.array(cell) * SPACING + rng.uniform(-14, 14, 2) for cell in grid]
    turn = rotation(rng.uniform(0, 2 * np.pi))
    nodes = [turn @ node + corner for node in nodes]
    lit = [bool(rng.random() < 0.6) for _ in nodes]
    lanes: list[Lane] = []
    # Of each intersection: the one at the other end of a street, and the lane's id.
    arriving: list[list[tuple[int, int]]] = [[] for _ in nodes]
    leaving: list[list[tuple[int, int]]] = [[] for _ in nodes]
    for a, b in _streets(grid):
        middle = _street(rng, nodes[a], nodes[b])
        limit = float(rng.uniform(*LIMITS))
        same_row = grid[a][0] == grid[b][0]
        for line, start, end in ((middle, a, b), (middle[::-1], b, a)):
            first = len(lanes)
            last = first + 1
            lanes += _direction_of_street(line, first, limit)
            lanes[last].phase = int(same_row)
            if lit[end]:
                lanes[last].control = True
                lanes[last].gate = end
            arriving[end].append((start, last))
            leaving[start].append((end, first))
    for arrivals, departures in zip(arriving, leaving, strict=True):
        for origin, i in arrivals:
            for target, j in departures:
                if origin != target:  # no U-turns
                    _connect(lanes, i, j)
    return lanes


def _streets(grid: list[tuple[int, ...]]) -> list[tuple[int, int]]:
    """Return the pairs of neighboring intersections, by their indices in the grid."""
    pairs = []
    for a, (row, column) in enumerate(grid):
        for neighbor in ((row + 1, column), (row, column + 1)):
            if neighbor in grid:
                pairs.append((a, grid.index(neighbor)))
    return pairs


def _direction_of_street(middle: np.ndarray, first: int, limit: float) -> list[Lane]:
    """Build one direction of a street, in two lanes, as real maps cut long streets.

    Args:
        middle (np.ndarray): The street's middle in the direction of travel, ``[n, 2]``.
        first (int): The id of the first lane.
        limit (float): Meters per second.
    """
    line = middle + OFFSET * sideways(middle)
    line = resample(line, 2 * LANE_POINTS - 1)
    return [
        Lane(line[:LANE_POINTS], limit=limit, successors=[first + 1]),
        Lane(line[LANE_POINTS - 1 :], limit=limit),
    ]


def _bezier(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Return 60 points of a cubic curve by its control points, each ``[2]``."""
    t = np.linspace(0, 1, 60)[:, None]
    rest = 1 - t
    return rest**3 * a + 3 * rest**2 * t * b + 3 * rest * t**2 * c + t**3 * d


def sideways(line: np.ndarray) -> np.ndarray:
    """Return unit vectors to the right of a line's direction, ``[n, 2]``."""
    ahead = np.gradient(line, axis=0)
    ahead /= np.linalg.norm(ahead, axis=-1, keepdims=True)
    return np.stack([ahead[:, 1], -ahead[:, 0]], axis=-1)


def _street(rng: np.random.Generator, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Draw the middle line of a street between two intersections."""
    ahead = (end - start) / np.linalg.norm(end - start)
    side = np.array([ahead[1], -ahead[0]])
    start = start + SETBACK * ahead
    end = end - SETBACK * ahead
    third = (end - start) / 3
    bend_at_start, bend_at_end = rng.normal(0, 9, 2)
    near_start = start + third + bend_at_start * side
    near_end = end - third + bend_at_end * side
    return _bezier(start, near_start, near_end, end)


def _connect(lanes: list[Lane], i: int, j: int) -> None:
    """Add the lane that leads through an intersection from lane ``i`` to lane ``j``."""
    arriving = lanes[i]
    leaving = lanes[j]
    start = arriving.line[-1]
    end = leaving.line[0]
    ahead_at_start = _unit(start - arriving.line[-2])
    ahead_at_end = _unit(leaving.line[1] - end)
    reach = np.linalg.norm(end - start) * 0.4
    near_start = start + reach * ahead_at_start
    near_end = end - reach * ahead_at_end
    line = resample(_bezier(start, near_start, near_end, end), LANE_POINTS)
    angle = _angle_between(ahead_at_start, ahead_at_end)
    length = np.linalg.norm(np.diff(line, axis=0), axis=-1).sum()
    curvature = abs(angle) / length
    fastest = np.sqrt(SIDEWAYS / max(curvature, 1e-3))
    lane = Lane(
        line,
        turn=_turn_of(angle),
        junction=True,
        control=arriving.control,
        limit=float(min(arriving.limit, fastest)),
        successors=[j],
    )
    arriving.successors.append(len(lanes))
    lanes.append(lane)


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def _angle_between(a: np.ndarray, b: np.ndarray) -> float:
    """Return the turn from one direction ``[2]`` to another, radians, positive to the left."""
    return np.arctan2(a[0] * b[1] - a[1] * b[0], a @ b)


def _turn_of(angle: float) -> str:
    """Return what a map calls a turn by this angle."""
    if abs(angle) < 0.7:
        return 'NONE'
    return 'LEFT' if angle > 0 else 'RIGHT'


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
    """A vehicle on the lanes of a city.

    Attributes:
        lane (int): Id of the lane.
        s (float): Meters from the lane's start.
        speed (float): Meters per second.
        wish (float): The speed that its driver wants, relative to the limit.
        route (list[int]): Ids of the next lanes, as far as they are chosen.
    """

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
        self.vehicles = self._place_vehicles()

    def _place_vehicles(self) -> list[_Vehicle]:
        """Put vehicles on streets, at random and apart."""
        slots = []
        for i, lane in enumerate(self.lanes):
            if not lane.junction:
                slots += [(i, s) for s in np.arange(4.0, lane.length - 4.0, 14.0)]
        vehicles = []
        for n in self.rng.permutation(len(slots))[:VEHICLES]:
            lane_id, s = slots[n]
            speed = self.rng.uniform(4, 9)
            wish = self.rng.uniform(0.8, 1.15)
            vehicles.append(_Vehicle(lane_id, s, speed, wish))
        return vehicles

    def run(self, steps: int) -> np.ndarray:
        """Simulate: ``[V, steps, 4]``, as the tracks of :class:`Window` without noise."""
        frames = []
        for _ in range(steps):
            self._step()
            frame = []
            for vehicle in self.vehicles:
                x, y, heading = self.lanes[vehicle.lane].pose(vehicle.s)
                frame.append((x, y, heading, vehicle.speed))
            frames.append(frame)
        return np.array(frames).swapaxes(0, 1)

    def _step(self) -> None:
        """Move all vehicles by one step, each by what it sees before the step."""
        self.time += STEP
        queues: dict[int, list[_Vehicle]] = {}
        for vehicle in sorted(self.vehicles, key=lambda vehicle: vehicle.s):
            queues.setdefault(vehicle.lane, []).append(vehicle)
        accelerations = [self._acceleration(v, queues) for v in self.vehicles]
        for vehicle, acceleration in zip(self.vehicles, accelerations, strict=True):
            self._move(vehicle, acceleration)

    def _move(self, vehicle: _Vehicle, acceleration: float) -> None:
        """Move a vehicle by a step with constant acceleration, onto its next lanes if need be."""
        speed_before = vehicle.speed
        vehicle.speed = max(speed_before + acceleration * STEP, 0.0)
        vehicle.s += (speed_before + vehicle.speed) / 2 * STEP
        while vehicle.s > self.lanes[vehicle.lane].length:
            vehicle.s -= self.lanes[vehicle.lane].length
            vehicle.lane = self._route(vehicle, 1).pop(0)

    def _route(self, vehicle: _Vehicle, count: int) -> list[int]:
        """Return the next lanes; branches are chosen at random when first asked for."""
        route = vehicle.route
        while len(route) < count:
            last = route[-1] if route else vehicle.lane
            successors = self.lanes[last].successors
            route.append(int(self.rng.choice(successors)))
        return route

    def _acceleration(
        self, vehicle: _Vehicle, queues: dict[int, list[_Vehicle]]
    ) -> float:
        """Compute a vehicle's acceleration by what its driver sees along the route, m/s^2.

        Args:
            vehicle (_Vehicle): The vehicle.
            queues (dict[int, list[_Vehicle]]): The vehicles of each lane, the last
                first.
        """
        lane = self.lanes[vehicle.lane]
        wanted = lane.limit * vehicle.wish
        gap = np.inf  # meters to the car ahead or to a red light
        closing = 0.0
        ahead = [other for other in queues[vehicle.lane] if other.s > vehicle.s]
        if ahead:
            gap = ahead[0].s - vehicle.s - CAR
            closing = vehicle.speed - ahead[0].speed
        distance = lane.length - vehicle.s  # to the end of the lane
        lanes_ahead = 0
        while distance < SIGHT:
            braking_distance = vehicle.speed**2 / (2 * HARD_BRAKING)
            can_brake = distance > braking_distance - 1.0
            if gap == np.inf and self._is_red(lane) and can_brake:
                # The light is a standing car.
                gap = distance + MIN_GAP - 1.0
                closing = vehicle.speed
            lanes_ahead += 1
            lane_id = self._route(vehicle, lanes_ahead)[lanes_ahead - 1]
            lane = self.lanes[lane_id]
            # Slow down in time for the turn: v^2 = u^2 + 2 b d.
            speed_there = lane.limit * vehicle.wish
            fastest = np.sqrt(speed_there**2 + 2 * TURN_BRAKING * distance)
            wanted = min(wanted, fastest)
            queue = queues.get(lane_id)
            if gap == np.inf and queue:
                gap = distance + queue[0].s - CAR
                closing = vehicle.speed - queue[0].speed
            distance += lane.length
        return idm(vehicle.speed, wanted, gap, closing)

    def _is_red(self, lane: Lane) -> bool:
        """Return whether the light at a lane's end is red; False without a light."""
        if lane.gate < 0:
            return False
        # The lights of intersections change at different times.
        phase = int((self.time + lane.gate * 5.0) // GREEN) % 2
        return phase != lane.phase


def idm(speed: float, wanted: float, gap: float, closing: float) -> float:
    """Compute the acceleration of the intelligent driver model, m/s^2.

    Args:
        speed, wanted (float): m/s.
        gap (float): To the car ahead, meters; infinite on a free road.
        closing (float): Speed minus that of the car ahead, m/s.
    """
    braking = speed * closing / (2 * np.sqrt(ACCELERATION * BRAKING))
    wish = MIN_GAP + max(0.0, speed * TIME_GAP + braking)
    on_free_road = ACCELERATION * (1 - (speed / max(wanted, 0.1)) ** 4)
    behind_car = ACCELERATION * (wish / max(gap, 0.3)) ** 2
    return float(np.clip(on_free_road - behind_car, -7.0, ACCELERATION))


def simulate(
    split_seed: int, count: int, history_steps: int, future_steps: int
) -> list[Window]:
    """Simulate the scenes of a split, alternating between the cities.

    Args:
        split_seed (int): Another one gives other traffic in the same cities.
        count (int): How many scenes.
        history_steps, future_steps (int): Steps of a scene that are observed, and that
            are to be forecast.
    """
    steps = history_steps + future_steps
    cities = sorted(CITIES)
    parts = range(0, count, PER_SIMULATION)
    progress = tqdm(parts, f'simulating {count:,} scenes, in parts', disable=None)
    found: list[Window] = []
    for number, done in enumerate(progress):
        city = cities[number % len(cities)]
        seed = 1000 * split_seed + number
        in_part = min(PER_SIMULATION, count - done)
        found += windows(city, seed, in_part, steps, history_steps)
    return found


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
    num_cuts = math.ceil(count / PER_WINDOW)
    total = steps + STRIDE * (num_cuts - 1)
    tracks = simulation.run(total)
    found: list[Window] = []
    for start in range(0, total - steps + 1, STRIDE):
        cut = tracks[:, start : start + steps]
        # As in Argoverse, agents that do something are worth a forecast.
        moves = cut[:, -1, :2] - cut[:, 0, :2]
        moved = np.linalg.norm(moves, axis=-1)
        going = np.flatnonzero(moved > 0.15 * steps)
        if len(going) < PER_WINDOW:
            going = np.argsort(-moved)[:PER_WINDOW]
        for focal in rng.permutation(going)[:PER_WINDOW]:
            found.append(_observe(rng, city, cut, int(focal), history))
    return found[:count]


def _observe(
    rng: np.random.Generator, city: str, tracks: np.ndarray, focal: int, history: int
) -> Window:
    """Simulate what the sensors of the vehicle nearest to the focal one observe.

    Of the others it sees some late and some with a gap, and whatever it sees, itself
    included, with noise. The focal vehicle is seen from a third of the history on.

    Args:
        rng (np.random.Generator): Draws what is hidden, and the noise.
        city (str): Where they are.
        tracks (np.ndarray): ``[N, steps, ...]``, x and y first, in meters.
        focal (int): The number of the vehicle whose future is to forecast.
        history (int): How many steps come before that future.
    """
    count, steps = tracks.shape[:2]
    positions = tracks[..., :2]
    distance = np.linalg.norm(positions - positions[focal], axis=-1)
    # The nearest of all at the end of the history is the focal vehicle itself.
    by_distance = np.argsort(distance[:, history - 1])
    sensor = int(by_distance[1])
    from_sensor = np.linalg.norm(positions - positions[sensor], axis=-1)
    valid = from_sensor < SENSOR_RANGE
    for n in range(count):
        if n in (focal, sensor):
            continue
        if rng.random() < 0.25:  # came into view late
            valid[n, : rng.integers(1, steps // 2)] = False
        if rng.random() < 0.3:  # hidden behind another for a while
            start = rng.integers(0, steps - 5)
            valid[n, start : start + rng.integers(3, max(steps // 4, 4))] = False
    if rng.random() < 0.2:  # the focal vehicle, too, may come into view late
        valid[focal, : rng.integers(1, history // 3)] = False
    valid[sensor] = True
    # A forecast needs its history, even where it is far from the sensors.
    valid[focal, history // 3 :] = True
    seen = np.flatnonzero(valid.any(axis=1))
    noisy = tracks[seen]  # a copy: the simulation's own tracks stay exact
    noisy[..., :2] += rng.normal(0, NOISE, noisy[..., :2].shape)
    focal_row, sensor_row = np.searchsorted(seen, (focal, sensor)).tolist()
    return Window(city, noisy, valid[seen], focal_row, sensor_row)
