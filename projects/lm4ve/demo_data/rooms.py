"""Rooms with colored shapes, somebody who stands in them, and questions that he or she asks.

For seeing SQA3D's model train without a download. The shapes are the point-cloud demo's
primitives. They stand to the north, east, south and west of the middle, where the asker
is; so an answer follows from where the asker looks (the situation) and from what is
there (the cloud), and from neither alone.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lm4ve.geometry.surfaces import sample_primitive

#: The shapes: their primitive, and the least and the greatest size in x, y, z in
#: meters.
SHAPES = {
    'box': ('box', (0.55, 0.55, 0.35), (0.75, 0.75, 0.5)),
    'ball': ('sphere', (0.6, 0.6, 0.6), (0.7, 0.7, 0.7)),
    'cone': ('cone', (0.55, 0.55, 0.75), (0.7, 0.7, 0.95)),
    'cylinder': ('cylinder', (0.3, 0.3, 0.85), (0.4, 0.4, 1.05)),
}
#: Red, green and blue of shapes, floor and walls.
COLORS = {
    'red': (205, 45, 40),
    'green': (40, 160, 60),
    'blue': (45, 80, 200),
    'yellow': (225, 205, 50),
}
FLOOR = (120, 105, 90)
WALLS = (205, 205, 200)
#: Where shapes stand, clockwise from the north (y); "east" is x.
PLACES = ('north', 'east', 'south', 'west')
#: The directions of the places from the middle, x and y.
DIRECTIONS = ((0, 1), (1, 0), (0, -1), (-1, 0))
#: Where the asker sees them, clockwise too, and in words.
SIDES = {
    'front': 'in front of me',
    'right': 'to my right',
    'behind': 'behind me',
    'left': 'to my left',
}
#: Half of a room's sides at least and at most, in meters.
HALF = (2.0, 2.4)
#: The height of its walls, in meters.
WALL = 0.8
#: How far shapes stand from the middle, in meters.
AWAY = (1.35, 1.6)
#: How far beside the line through the middle the only shape of a place stands at most.
ASIDE = 0.25
#: How far beside it each of two stands.
APART = (0.5, 0.6)
#: How often there are two in a place, which are alike.
PAIRS = 0.15
#: How far from the middle the asker may stand, in x and in y.
STEP = 0.2
#: How far a shape is turned at most, in radians.
TURN = 0.26
#: Points of a shape, of the floor and of all walls.
SHAPE_POINTS = 96
FLOOR_POINTS = 160
WALL_POINTS = 160
#: Questions about a room. Each has a situation of its own: several of one situation
#: would be of different sides, which undoes SHARES.
QUESTIONS = 32
#: Wordings of one situation. All name the place ahead, which a small model learns to
#: look up sooner than the place behind.
WORDINGS = (
    'I am standing in the middle of the room and looking {}.',
    'I am in the center of the room, facing the {} wall.',
    'I stand in the middle of the room with the {} wall in front of me.',
)
#: Kinds of questions, by the first words of which SQA3D scores them, and how often each
#: is.
KINDS = {
    'shape': 4 / 11,
    'color': 4 / 11,
    'there': 1 / 11,
    'see': 1 / 11,
    'count': 1 / 11,
}
#: Relative frequencies of sides in questions. With equal ones, neither the side nor the
#: asker's heading alone would be informative, and training would stall for long.
SHARES = {'front': 6 / 9, 'right': 1 / 9, 'behind': 1 / 9, 'left': 1 / 9}
#: All that there are, "red box" and so on.
NAMES = tuple(f'{color} {shape}' for color in COLORS for shape in SHAPES)


@dataclass
class Thing:
    """A shape that stands in a room.

    Attributes:
        shape (str): A key of :data:`SHAPES`.
        color (str): A key of :data:`COLORS`.
        place (int): An index of :data:`PLACES`.
        center (tuple[float, float]): x and y, meters.
        size (np.ndarray): In x, y and z before it is turned, meters.
    """

    shape: str
    color: str
    place: int
    center: tuple[float, float]
    size: np.ndarray

    @property
    def name(self) -> str:
        """Its name in :data:`NAMES`."""
        return f'{self.color} {self.shape}'

    def is_a(self, word: str) -> bool:
        """Return whether a word is its shape or its color."""
        return word in (self.shape, self.color)


class Question(NamedTuple):
    """A question about a room.

    Attributes:
        kind (str): A key of :data:`KINDS`.
        side (str): A key of :data:`SIDES`, where the asker looks for the answer.
        text (str): The question.
        answer (str): The only right answer.
    """

    kind: str
    side: str
    text: str
    answer: str


# ------------------------------------------------------------------ shapes and points
def draw_things(place: int, rng: np.random.Generator) -> list[Thing]:
    """Draw the things of a place: one shape, or two that are alike in shape and color."""
    shape = list(SHAPES)[rng.integers(len(SHAPES))]
    color = list(COLORS)[rng.integers(len(COLORS))]
    beside = np.array([rng.uniform(-ASIDE, ASIDE)])
    if rng.random() < PAIRS:
        beside = rng.uniform(*APART, 2) * (-1, 1)
    _, least, most = SHAPES[shape]
    things = []
    for aside in beside:
        size = np.add(least, rng.random() * np.subtract(most, least))
        # As if the place were in the north, then turned to it.
        x = aside
        y = rng.uniform(*AWAY)
        for _ in range(place):
            x, y = y, -x
        things.append(Thing(shape, color, place, (x, y), size))
    return things


def draw_cloud(
    things: list[Thing], half: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the points of a room, in random order.

    Args:
        things (list[Thing]): What stands in it.
        half (np.ndarray): Half of its sides in x and y, in meters.
        rng (np.random.Generator): The source of all random numbers.

    Returns:
        tuple[np.ndarray, np.ndarray]: float32 ``[P, 6]``: x, y, z in meters, red, green
        and blue from 0 to 255; and int64 ``[P]``: the index of the thing, -1 for the
        floor and -2 for the walls.
    """
    clouds = []
    for thing in things:
        clouds.append(_paint(_draw_shape(thing, rng), COLORS[thing.color], rng))
    clouds.append(_paint(_draw_floor(half, rng), FLOOR, rng))
    clouds.append(_paint(_draw_walls(half, rng), WALLS, rng))
    sizes = [len(cloud) for cloud in clouds]
    parts = np.repeat([*range(len(things)), -1, -2], sizes)
    order = rng.permutation(sum(sizes))
    return np.concatenate(clouds)[order].astype(np.float32), parts[order]


def _draw_shape(thing: Thing, rng: np.random.Generator) -> np.ndarray:
    """Draw points of a thing in its place, on the floor and turned a little, ``[P, 3]``."""
    primitive, _, _ = SHAPES[thing.shape]
    points = sample_primitive(primitive, SHAPE_POINTS, rng)
    low = points.min(axis=0)
    high = points.max(axis=0)
    points = (points - (low + high) / 2) * (thing.size / (high - low))
    points = points @ turn_around_z(rng.uniform(-TURN, TURN)).T
    x, y = thing.center
    points += (x, y, thing.size[2] / 2)
    return points


def _draw_floor(half: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw points of the floor, ``[P, 3]``."""
    xy = rng.uniform(-1, 1, (FLOOR_POINTS, 2)) * half
    return np.hstack((xy, np.zeros((FLOOR_POINTS, 1))))


def _draw_walls(half: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw points of the four walls, ``[P, 3]``."""
    along = rng.uniform(-1, 1, WALL_POINTS)[:, None]
    walls = np.array(DIRECTIONS)[rng.integers(0, 4, WALL_POINTS)]
    xy = walls * half + (1 - abs(walls)) * along * half
    z = rng.uniform(0, WALL, (WALL_POINTS, 1))
    return np.hstack((xy, z))


def _paint(
    points: np.ndarray, color: tuple[int, ...], rng: np.random.Generator
) -> np.ndarray:
    """Add a color that differs a little from thing to thing and from point to point."""
    mean = np.array(color) + rng.normal(scale=10, size=3)
    colors = np.rint(mean + rng.normal(scale=6, size=points.shape)).clip(0, 255)
    return np.hstack((points, colors))


def turn_around_z(angle: float) -> np.ndarray:
    """Return the rotation by an angle in radians, ``[3, 3]``."""
    cosine = np.cos(angle)
    sine = np.sin(angle)
    return np.array([(cosine, -sine, 0), (sine, cosine, 0), (0, 0, 1)])


# -------------------------------------------------------------------------- questions
def questions_of(things: list[Thing], looks: int) -> list[Question]:
    """Return all questions that have one answer.

    Args:
        things (list[Thing]): What stands in the room.
        looks (int): Where the asker looks, of :data:`PLACES`.

    A "no" or a 0 is the answer only for what stands elsewhere in the room, so that what
    is there at all does not give the answer away.
    """
    questions = []
    sides = list(SIDES)
    for place in range(len(PLACES)):
        side = sides[(place - looks) % len(PLACES)]
        words = SIDES[side]
        here = [thing for thing in things if thing.place == place]
        shape = here[0].shape
        color = here[0].color
        questions.append(Question('shape', side, f'What is {words}?', shape))
        questions.append(
            Question('color', side, f'What color is the thing {words}?', color)
        )
        for word, (one, many) in _NOUNS.items():
            if not any(thing.is_a(word) for thing in things):
                continue
            number = sum(thing.is_a(word) for thing in here)
            text = f'How many {many} are {words}?'
            questions.append(Question('count', side, text, str(number)))
            yes_or_no = 'yes' if number else 'no'
            text = f'Is there {one} {words}?'
            questions.append(Question('there', side, text, yes_or_no))
            if side == 'front':
                text = f'Can I see {one}?'
                questions.append(Question('see', side, text, yes_or_no))
    return questions


def _nouns() -> dict[str, tuple[str, str]]:
    """Return how one thing and several things of a color or a shape are called."""
    nouns = {}
    for color in COLORS:
        nouns[color] = (f'a {color} thing', f'{color} things')
    for shape in SHAPES:
        plural = 'boxes' if shape == 'box' else f'{shape}s'
        nouns[shape] = (f'a {shape}', plural)
    return nouns


_NOUNS = _nouns()


def draw_question(
    things: list[Thing], looks: int, rng: np.random.Generator
) -> tuple[str, str]:
    """Draw a question and its answer; of a kind and a side, each answer occurs alike often."""
    questions = questions_of(things, looks)
    fitting: list[Question] = []
    while not fitting:
        kind = rng.choice(list(KINDS), p=list(KINDS.values()))
        side = rng.choice(list(SHARES), p=list(SHARES.values()))
        if kind == 'see':
            side = 'front'
        fitting = [q for q in questions if q.kind == kind and q.side == side]
    # Of counts there are 0, and 1 or 2.
    answers = sorted({question.answer for question in fitting})
    answer = answers[rng.integers(len(answers))]
    texts = [question.text for question in fitting if question.answer == answer]
    return texts[rng.integers(len(texts))], answer


# ------------------------------------------------------------------------------ rooms
class Asked(NamedTuple):
    """A question with its situation.

    Attributes:
        looks (int): Where the asker looks, of :data:`PLACES`.
        stands (np.ndarray): x and y of the asker, meters.
        situation (str): The same in words.
        question (str): The question.
        answer (str): The only right answer.
    """

    looks: int
    stands: np.ndarray
    situation: str
    question: str
    answer: str


@dataclass
class Room:
    """A room, its points and the questions about it.

    Attributes:
        things (list[Thing]): What stands in it.
        asked (list[Asked]): :data:`QUESTIONS` of them.
        points (np.ndarray): float32 ``[P, 6]``, see :func:`draw_cloud`.
        parts (np.ndarray): int64 ``[P]``, see :func:`draw_cloud`.
        alignment (np.ndarray): float64 ``[4, 4]``, moves the room as it was scanned to
            the frame of all above.
    """

    things: list[Thing]
    asked: list[Asked]
    points: np.ndarray
    parts: np.ndarray
    alignment: np.ndarray


def draw_room(rng: np.random.Generator) -> Room:
    """Draw a room with all that is asked in it."""
    things = []
    for place in range(len(PLACES)):
        things += draw_things(place, rng)
    half = rng.uniform(*HALF, 2)
    asked = [_draw_asked(things, rng) for _ in range(QUESTIONS)]
    points, parts = draw_cloud(things, half, rng)
    return Room(things, asked, points, parts, _draw_alignment(rng))


def _draw_asked(things: list[Thing], rng: np.random.Generator) -> Asked:
    looks = int(rng.integers(len(PLACES)))
    stands = rng.uniform(-STEP, STEP, 2)
    wording = WORDINGS[rng.permutation(len(WORDINGS))[0]]
    question, answer = draw_question(things, looks, rng)
    return Asked(looks, stands, wording.format(PLACES[looks]), question, answer)


def _draw_alignment(rng: np.random.Generator) -> np.ndarray:
    """Draw the matrix that moves a scan to the aligned frame, ``[4, 4]``.

    It is rounded as in a file of ScanNet, so that the alignment that is read is exact.
    """
    matrix = np.eye(4)
    matrix[:3, :3] = turn_around_z(rng.uniform(-np.pi, np.pi))
    matrix[:2, 3] = rng.uniform(-2, 2, 2)
    return np.round(matrix, 6)


def to_scan(points: np.ndarray, alignment: np.ndarray) -> np.ndarray:
    """Move points ``[..., 3]`` from the aligned frame to that of the scan."""
    return (points - alignment[:3, 3]) @ alignment[:3, :3]
