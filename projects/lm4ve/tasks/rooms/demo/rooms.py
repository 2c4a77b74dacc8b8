"""Rooms with colored shapes, somebody who stands in them, and questions that he or she asks.

For seeing SQA3D's model train without a download. The shapes are the point-cloud demo's
primitives. They stand to the north, east, south and west of the middle, where the asker
is; so an answer follows from where the asker looks (the situation) and from what is there
(the cloud), and from neither alone.
"""

from dataclasses import dataclass

import numpy as np

from lm4ve.tasks.base.meshes import sample_primitive

#: The shapes: their primitive, and the least and the greatest size in x, y, z in meters.
SHAPES = dict(
    box=('box', (0.55, 0.55, 0.35), (0.75, 0.75, 0.5)),
    ball=('sphere', (0.6, 0.6, 0.6), (0.7, 0.7, 0.7)),
    cone=('cone', (0.55, 0.55, 0.75), (0.7, 0.7, 0.95)),
    cylinder=('cylinder', (0.3, 0.3, 0.85), (0.4, 0.4, 1.05)),
)
PLURALS = dict(box='boxes')
COLORS = dict(red=(205, 45, 40), green=(40, 160, 60), blue=(45, 80, 200), yellow=(225, 205, 50))
#: Where shapes stand, clockwise from the north (y); "east" is x.
PLACES = ('north', 'east', 'south', 'west')
#: Where the asker sees them, clockwise too, and in words.
SIDES = dict(front='in front of me', right='to my right', behind='behind me', left='to my left')
#: Half of a room's sides, and the height of its walls, in meters.
HALF, WALL = (2.0, 2.4), 0.8
#: How far shapes stand from the middle, how far beside the line through it the only one
#: stands at most, and each of two.
AWAY, ASIDE, APART = (1.35, 1.6), 0.25, (0.5, 0.6)
#: How often there are two in a place, which are alike.
PAIRS = 0.15
#: How far from the middle the asker may stand, in x and in y.
STEP = 0.2
#: How far a shape is turned at most, in radians.
TURN = 0.26
#: Points of a shape, of the floor and of all walls.
POINTS = dict(shape=96, floor=160, walls=160)
#: Questions about a room. Each has a situation of its own: several of one situation would be
#: of different sides, which undoes SHARES.
QUESTIONS = 32
#: Wordings of one situation. All name the place ahead, which a small model learns to look up
#: sooner than the place behind.
WORDINGS = (
    'I am standing in the middle of the room and looking {}.',
    'I am in the center of the room, facing the {} wall.',
    'I stand in the middle of the room with the {} wall in front of me.',
)
#: Kinds of questions, by the first words of which SQA3D scores them, and how often each is.
KINDS = dict(shape=4, color=4, there=1, see=1, count=1)
#: Relative frequencies of sides in questions. With equal ones, neither the side nor the
#: asker's heading alone would be informative, and training would stall for long.
SHARES = dict(front=6, right=1, behind=1, left=1)
#: All that there are, "red box" and so on.
NAMES = tuple(f'{color} {shape}' for color in COLORS for shape in SHAPES)
ANSWERS = (*SHAPES, *COLORS, 'yes', 'no', '0', '1', '2')


@dataclass(frozen=True)
class Thing:
    """A shape in a room.

    Attributes:
        shape, color (str): Of :data:`SHAPES` and :data:`COLORS`.
        place (int): Of :data:`PLACES`.
        center (tuple[float, float]): x, y in meters.
        size (tuple[float, float, float]): In x, y, z before it is turned, in meters.
    """

    shape: str
    color: str
    place: int
    center: tuple[float, float]
    size: tuple[float, float, float]


@dataclass(frozen=True)
class Room:
    """A room in words and numbers, in a frame whose y is north.

    Attributes:
        half (tuple[float, float]): Half of its sides in x and y, in meters.
        things (tuple[Thing, ...]): What stands in it.
        asked (tuple[dict, ...]): Questions with ``looks`` (where the asker looks, of
            :data:`PLACES`), ``stands`` (x, y), ``situations`` (worded in three ways),
            ``question`` and ``answer``.
    """

    half: tuple[float, float]
    things: tuple[Thing, ...]
    asked: tuple[dict, ...]


def draw_room(rng: np.random.Generator) -> Room:
    """Draw a room and the questions about it."""
    things: list[Thing] = []
    for place in range(len(PLACES)):
        things += _draw_things(place, rng)
    half = tuple(rng.uniform(*HALF, 2).tolist())
    asked: list[dict] = []
    for _ in range(QUESTIONS):
        looks = int(rng.integers(len(PLACES)))
        stands = tuple(rng.uniform(-STEP, STEP, 2).tolist())
        order = rng.permutation(len(WORDINGS))
        words = [WORDINGS[i].format(PLACES[looks]) for i in order]
        seen = dict(looks=looks, stands=stands, situations=words)
        asked.append(seen | _draw_question(things, looks, rng))
    return Room(half, tuple(things), tuple(asked))


def _draw_things(place: int, rng: np.random.Generator) -> list[Thing]:
    """One shape, or two that are alike in shape and color."""
    shape = list(SHAPES)[rng.integers(len(SHAPES))]
    color = list(COLORS)[rng.integers(len(COLORS))]
    beside = [rng.uniform(-ASIDE, ASIDE)]
    if rng.random() < PAIRS:
        beside = (rng.uniform(*APART, 2) * (-1, 1)).tolist()
    _, least, most = SHAPES[shape]
    things = []
    for aside in beside:
        size = tuple(np.add(least, rng.random() * np.subtract(most, least)).tolist())
        # Away from the middle and aside, turned to the place.
        x, y = float(aside), float(rng.uniform(*AWAY))
        for _ in range(place):
            x, y = y, -x
        things.append(Thing(shape, color, place, (x, y), size))
    return things


def questions_of(things: list[Thing], looks: int) -> list[tuple[str, str, str, str]]:
    """Return all questions that have one answer: kind, side, question, answer.

    Args:
        things (list[Thing]): What stands in the room.
        looks (int): Where the asker looks, of :data:`PLACES`.

    A "no" or a 0 is the answer only for what stands elsewhere in the room, so that what is
    there at all does not give the answer away.
    """
    sides = {p: list(SIDES)[(p - looks) % len(PLACES)] for p in range(len(PLACES))}
    found = []
    names = {c: (f'a {c} thing', f'{c} things') for c in COLORS}
    names |= {s: (f'a {s}', PLURALS.get(s, f'{s}s')) for s in SHAPES}
    for place, side in sides.items():
        words, here = SIDES[side], [t for t in things if t.place == place]
        found.append(('shape', side, f'What is {words}?', here[0].shape))
        found.append(('color', side, f'What color is the thing {words}?', here[0].color))
        for name, (one, many) in names.items():
            if not any(name in (t.shape, t.color) for t in things):
                continue
            number = sum(name in (t.shape, t.color) for t in here)
            answer = 'yes' if number else 'no'
            found.append(('count', side, f'How many {many} are {words}?', str(number)))
            found.append(('there', side, f'Is there {one} {words}?', answer))
            if side == 'front':
                found.append(('see', side, f'Can I see {one}?', answer))
    return found


def _draw_question(things: list[Thing], looks: int, rng: np.random.Generator) -> dict[str, str]:
    """Draw a question; of a kind and a side, each answer that occurs alike often."""
    found = questions_of(things, looks)
    while True:
        kind, side = _pick(KINDS, rng), _pick(SHARES, rng)
        if kind == 'see':
            side = 'front'
        fit = [(q, a) for k, s, q, a in found if k == kind and s == side]
        # One thing or two alike: 0, and 1 or 2.
        if answers := sorted({a for _, a in fit}):
            answer = answers[rng.integers(len(answers))]
            questions = [q for q, a in fit if a == answer]
            return dict(question=questions[rng.integers(len(questions))], answer=answer)


def _pick(shares: dict[str, int], rng: np.random.Generator) -> str:
    total = sum(shares.values())
    return list(shares)[rng.choice(len(shares), p=[s / total for s in shares.values()])]


def draw_cloud(room: Room, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw the points of a room, in random order.

    Returns:
        tuple[np.ndarray, np.ndarray]: float32 ``[P, 9]``: x, y, z in meters, red, green, blue
        from 0 to 255, and the normal; and int64 ``[P]``: the index of the thing, -1 for the
        floor and -2 for the walls.
    """
    clouds = [_shape_points(thing, rng) for thing in room.things]
    clouds += [_floor(room, rng), _walls(room, rng)]
    numbers = [*range(len(room.things)), -1, -2]
    order = rng.permutation(sum(map(len, clouds)))
    parts = np.repeat(numbers, list(map(len, clouds)))[order]
    return np.concatenate(clouds)[order].astype(np.float32), parts


def _shape_points(thing: Thing, rng: np.random.Generator) -> np.ndarray:
    points, normals = sample_primitive(SHAPES[thing.shape][0], POINTS['shape'], rng)
    low, high = points.min(axis=0), points.max(axis=0)
    scale = np.array(thing.size) / (high - low)
    points = (points - (low + high) / 2) * scale
    normals = normals / scale
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    rotation = turn_around_z(rng.uniform(-TURN, TURN))
    points, normals = points @ rotation.T, normals @ rotation.T
    points += (*thing.center, thing.size[2] / 2)
    return np.hstack((points, _paint(COLORS[thing.color], len(points), rng), normals))


def turn_around_z(angle: float) -> np.ndarray:
    """Return the rotation by an angle in radians, ``[3, 3]``."""
    return np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )


def _paint(color: tuple[int, int, int], count: int, rng: np.random.Generator) -> np.ndarray:
    """A color that differs a little from thing to thing and from point to point."""
    color = np.array(color) + rng.normal(scale=10, size=3)
    return np.rint(color + rng.normal(scale=6, size=(count, 3))).clip(0, 255)


def _floor(room: Room, rng: np.random.Generator) -> np.ndarray:
    count = POINTS['floor']
    places = rng.uniform(-1, 1, (count, 2)) * room.half
    up = np.broadcast_to((0.0, 0.0, 1.0), (count, 3))
    return np.hstack((places, np.zeros((count, 1)), _paint((120, 105, 90), count, rng), up))


def _walls(room: Room, rng: np.random.Generator) -> np.ndarray:
    """The four walls, from the floor to :data:`WALL`, looking inwards."""
    count = POINTS['walls']
    along = rng.uniform(-1, 1, count)
    walls = np.array([(0, 1), (1, 0), (0, -1), (-1, 0)])[rng.integers(0, 4, count)]
    places = walls * np.array(room.half) + (1 - abs(walls)) * along[:, None] * room.half
    heights = rng.uniform(0, WALL, (count, 1))
    normals = np.hstack((-walls, np.zeros((count, 1))))
    return np.hstack((places, heights, _paint((205, 205, 200), count, rng), normals))
