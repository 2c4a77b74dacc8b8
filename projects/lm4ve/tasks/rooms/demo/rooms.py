"""Rooms with colored shapes, somebody who stands in them, and questions that he or she asks.

For seeing SQA3D's model train without a download. The shapes are the point-cloud demo's
primitives. They stand to the north, east, south and west of the middle, where the asker
is; so an answer follows from where the asker looks (the situation) and from what is
there (the cloud), and from neither alone. The files are those of SQA3D and ScanNet as
its baseline prepares them.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace as Thing
from typing import Any

import numpy as np
from mmengine.dist import barrier, is_main_process

from lm4ve.data.generated import write_once
from lm4ve.geometry.surfaces import sample_primitive
from lm4ve.registry import DATASETS
from lm4ve.tasks.rooms.datasets.scannet import NYU40_IDS
from lm4ve.tasks.rooms.datasets.sqa3d import SQA3DDataset

#: Rooms of each split.
ROOMS = dict(train=600, val=60, test=60)
#: The shapes: their primitive, and the least and the greatest size in x, y, z in
#: meters.
SHAPES = dict(
    box=('box', (0.55, 0.55, 0.35), (0.75, 0.75, 0.5)),
    ball=('sphere', (0.6, 0.6, 0.6), (0.7, 0.7, 0.7)),
    cone=('cone', (0.55, 0.55, 0.75), (0.7, 0.7, 0.95)),
    cylinder=('cylinder', (0.3, 0.3, 0.85), (0.4, 0.4, 1.05)),
)
COLORS = dict(
    red=(205, 45, 40), green=(40, 160, 60), blue=(45, 80, 200), yellow=(225, 205, 50)
)
FLOOR, WALLS = (120, 105, 90), (205, 205, 200)
#: Where shapes stand, clockwise from the north (y); "east" is x.
PLACES = ('north', 'east', 'south', 'west')
#: Where the asker sees them, clockwise too, and in words.
SIDES = dict(
    front='in front of me', right='to my right', behind='behind me', left='to my left'
)
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
SHAPE_POINTS, FLOOR_POINTS, WALL_POINTS = 96, 160, 160
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
KINDS = dict(shape=4 / 11, color=4 / 11, there=1 / 11, see=1 / 11, count=1 / 11)
#: Relative frequencies of sides in questions. With equal ones, neither the side nor the
#: asker's heading alone would be informative, and training would stall for long.
SHARES = dict(front=6 / 9, right=1 / 9, behind=1 / 9, left=1 / 9)
#: All that there are, "red box" and so on, and the NYU40 ids of furniture under which
#: they go.
NAMES = tuple(f'{color} {shape}' for color in COLORS for shape in SHAPES)
IDS = dict(zip(NAMES, NYU40_IDS, strict=False), wall=1, floor=2)


# ------------------------------------------------------------------ shapes and points
def draw_things(place: int, rng: np.random.Generator) -> list[Thing]:
    """Draw one shape, or two that are alike in shape and color.

    A thing has ``shape`` and ``color``, of :data:`SHAPES` and :data:`COLORS`, its
    ``place``, an index of :data:`PLACES`, its ``center`` (x, y), and ``size`` in x, y,
    z before it is turned.
    """
    shape = list(SHAPES)[rng.integers(len(SHAPES))]
    color = list(COLORS)[rng.integers(len(COLORS))]
    beside = np.array([rng.uniform(-ASIDE, ASIDE)])
    if rng.random() < PAIRS:
        beside = rng.uniform(*APART, 2) * (-1, 1)
    _, least, most = SHAPES[shape]
    things = []
    for x in beside:
        size = np.add(least, rng.random() * np.subtract(most, least))
        # Away from the middle and aside, turned to the place.
        y = rng.uniform(*AWAY)
        for _ in range(place):
            x, y = y, -x
        things.append(
            Thing(shape=shape, color=color, place=place, center=(x, y), size=size)
        )
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

    def paint(points: np.ndarray, color: tuple[int, ...]) -> np.ndarray:
        """Add a color that differs a little from thing to thing and from point to point."""
        mean = np.array(color) + rng.normal(scale=10, size=3)
        colors = np.rint(mean + rng.normal(scale=6, size=points.shape)).clip(0, 255)
        return np.hstack((points, colors))

    clouds = []
    for thing in things:
        points = sample_primitive(SHAPES[thing.shape][0], SHAPE_POINTS, rng)
        low, high = points.min(axis=0), points.max(axis=0)
        points = (points - (low + high) / 2) * (thing.size / (high - low))
        points = points @ turn_around_z(rng.uniform(-TURN, TURN)).T
        points += (*thing.center, thing.size[2] / 2)
        clouds.append(paint(points, COLORS[thing.color]))
    places = rng.uniform(-1, 1, (FLOOR_POINTS, 2)) * half
    clouds.append(paint(np.hstack((places, np.zeros((FLOOR_POINTS, 1)))), FLOOR))
    along = rng.uniform(-1, 1, WALL_POINTS)[:, None]
    walls = np.array([(0, 1), (1, 0), (0, -1), (-1, 0)])[
        rng.integers(0, 4, WALL_POINTS)
    ]
    places = walls * half + (1 - abs(walls)) * along * half
    clouds.append(
        paint(np.hstack((places, rng.uniform(0, WALL, (WALL_POINTS, 1)))), WALLS)
    )
    order = rng.permutation(sum(map(len, clouds)))
    parts = np.repeat([*range(len(things)), -1, -2], list(map(len, clouds)))
    return np.concatenate(clouds)[order].astype(np.float32), parts[order]


def turn_around_z(angle: float) -> np.ndarray:
    """Return the rotation by an angle in radians, ``[3, 3]``."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([(c, -s, 0), (s, c, 0), (0, 0, 1)])


# -------------------------------------------------------------------------- questions
def questions_of(things: list[Thing], looks: int) -> list[tuple[str, str, str, str]]:
    """Return all questions that have one answer: kind, side, question, answer.

    Args:
        things (list[Thing]): What stands in the room.
        looks (int): Where the asker looks, of :data:`PLACES`.

    A "no" or a 0 is the answer only for what stands elsewhere in the room, so that what
    is there at all does not give the answer away.
    """
    found = []
    names = {c: (f'a {c} thing', f'{c} things') for c in COLORS}
    names |= {s: (f'a {s}', 'boxes' if s == 'box' else f'{s}s') for s in SHAPES}
    for place in range(len(PLACES)):
        side = list(SIDES)[(place - looks) % len(PLACES)]
        words, here = SIDES[side], [t for t in things if t.place == place]
        found.append(('shape', side, f'What is {words}?', here[0].shape))
        found.append(
            ('color', side, f'What color is the thing {words}?', here[0].color)
        )
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


def draw_question(
    things: list[Thing], looks: int, rng: np.random.Generator
) -> tuple[str, str]:
    """Draw a question and its answer; of a kind and a side, each answer occurs alike often."""
    found = questions_of(things, looks)
    while True:
        kind = rng.choice(list(KINDS), p=list(KINDS.values()))
        side = rng.choice(list(SHARES), p=list(SHARES.values()))
        if kind == 'see':
            side = 'front'
        fit = [(q, a) for k, s, q, a in found if k == kind and s == side]
        # One thing or two alike: 0, and 1 or 2.
        if answers := sorted({a for _, a in fit}):
            answer = answers[rng.integers(len(answers))]
            questions = [q for q, a in fit if a == answer]
            return questions[rng.integers(len(questions))], answer


# ------------------------------------------------------------------------------ files
def write_rooms(folder: str | Path, counts: Mapping[str, int] = ROOMS) -> Path:
    """Write the data set, as SQA3D's baseline lays out ScanNet and its questions.

    There are ``scannet_data/<room>_*.npy``, ``scans/<room>/<room>.txt``,
    ``objects/<room>.npy`` and ``qa/SQA_<split>.json``. A folder that holds it already
    is left as it is. It appears as a whole, so that no other process reads a part of
    it.

    Args:
        folder (str | Path): Where to.
        counts (dict[str, int]): Rooms of each split.

    Returns:
        Path: ``folder``.

    Raises:
        UserError: The folder holds something else.
    """

    def write(partial: Path) -> None:
        for part in ('scannet_data', 'objects', 'qa'):
            (partial / part).mkdir()
        rooms = 0
        for number, (split, count) in enumerate(counts.items()):
            rows: list[dict] = []
            for i in range(count):
                # Each room has a generator of its own, so that more rooms begin alike.
                rng = np.random.default_rng((number, i))
                rows += _write_room(partial, f'scene{rooms + i:04d}_00', rng)
            for question_id, row in enumerate(rows, rooms * QUESTIONS):
                row['question_id'] = question_id
            (partial / f'qa/SQA_{split}.json').write_text(json.dumps(rows))
            rooms += count

    return write_once(folder, dict(version=3, rooms=dict(counts)), 'rooms', write)


def _write_room(folder: Path, name: str, rng: np.random.Generator) -> list[dict]:
    """Write a room as scanned, in a frame of its own, and as aligned; return its questions."""
    things = [
        thing for place in range(len(PLACES)) for thing in draw_things(place, rng)
    ]
    half, asked = rng.uniform(*HALF, 2), []
    for _ in range(QUESTIONS):
        looks = int(rng.integers(len(PLACES)))
        stands = rng.uniform(-STEP, STEP, 2)
        situation = WORDINGS[rng.permutation(len(WORDINGS))[0]].format(PLACES[looks])
        asked.append((looks, stands, situation, *draw_question(things, looks, rng)))
    points, parts = draw_cloud(things, half, rng)
    frame = np.eye(4)
    frame[:3, :3] = turn_around_z(rng.uniform(-np.pi, np.pi))
    frame[:2, 3] = rng.uniform(-2, 2, 2)
    # Rounded as in the file, so that the alignment that is read is exact.
    frame = np.round(frame, 6)
    turn, shift = frame[:3, :3], frame[:3, 3]  # aligned = turn @ scanned + shift
    scan = points.astype(np.float64)
    scan[:, :3] = (scan[:, :3] - shift) @ turn
    ids = np.array(
        [IDS[x] for x in (*(f'{t.color} {t.shape}' for t in things), 'wall', 'floor')]
    )
    clouds = [points[parts == i] for i in range(len(things))]
    # Counted from 1; of the negative parts, the floor comes first.
    instances = np.where(parts < 0, len(things) - parts, parts + 1)
    # The output of a perfect detector: center and size in meters, and the mean color
    # around 0.
    features = [(*_box(x), *(x[:, 3:6].mean(axis=0) - 128) / 64) for x in clouds]
    boxes = np.array([(*_box(x), ids[i], i) for i, x in enumerate(clouds)])
    arrays: dict[str, np.ndarray] = dict(
        vert=scan.astype(np.float32),
        aligned_vert=points,
        aligned_bbox=boxes,
        sem_label=ids[parts].astype(np.uint32),
        ins_label=instances.astype(np.uint32),
    )
    files = {f'scannet_data/{name}_{kind}': array for kind, array in arrays.items()}
    files[f'objects/{name}'] = np.array(features, dtype=np.float32)
    for file, array in files.items():
        np.save(folder / f'{file}.npy', array, allow_pickle=False)
    path = folder / 'scans' / name / f'{name}.txt'
    path.parent.mkdir(parents=True)
    path.write_text(f'axisAlignment = {" ".join(f"{x:.6f}" for x in frame.ravel())} \n')
    rows, middle = [], (scan[:, :3].min(axis=0) + scan[:, :3].max(axis=0)) / 2
    for looks, stands, situation, question, answer in asked:
        x, y, _ = ((*stands, 0.0) - shift) @ turn - middle
        ahead = np.array([(0, 1, 0), (1, 0, 0), (0, -1, 0), (-1, 0, 0)][looks]) @ turn
        # Without a turn the asker looks along -x, as SQA3D's code draws it. A hundredth
        # of a radian more: a quaternion and its negative are one turn, and exactly at a
        # right angle rounding alone would choose between them.
        angle = (np.arctan2(-ahead[1], -ahead[0]) + 0.01) / 2
        pose = [x, y, 0.0, 0.0, 0.0, np.sin(angle), np.cos(angle)]
        texts = dict(situation=situation, question=question, answers=[answer])
        rows.append(dict(scene_id=name, **texts, position=pose))
    return rows


def _box(points: np.ndarray) -> np.ndarray:
    low, high = points[:, :3].min(axis=0), points[:, :3].max(axis=0)
    return np.concatenate(((low + high) / 2, high - low))


def blank(results: dict) -> dict:
    """Replace points by the same in every scene of as many; boxes and pose stay.

    They are drawn at random from a box of 4 x 4 x 1 m on the origin, their other
    columns are 0. (In one place, all features would be alike, and batch norms would
    divide by nothing.)
    """
    places = np.random.default_rng(0).uniform(
        (-2, -2, 0), (2, 2, 1), (len(results['points']), 3)
    )
    others = np.zeros_like(results['points'][:, 3:])
    return dict(results, points=np.hstack((places.astype(np.float32), others)))


@DATASETS.register_module()
class Rooms(SQA3DDataset):
    """Questions about rooms of colored shapes, made of primitives on first use.

    Args:
        split (str): 'train', 'val' or 'test', which share no room.
        data_root (str): Where they are; they are written there if they are not
            (seconds).
        rooms (dict[str, int]): Rooms of each split.
        blank_scenes (bool): Points are constant (:func:`blank`). A model trained and
            tested so sees the texts only, which is the control that clouds are needed.
        **kwargs: Passed to :class:`lm4ve.tasks.rooms.SQA3DDataset`.

    Raises:
        UserError: There is no such split, or ``data_root`` holds something else.
    """

    METAINFO = dict(classes=NAMES)

    def __init__(
        self,
        split: str = 'train',
        data_root: str = 'data/rooms',
        rooms: Mapping[str, int] = ROOMS,
        blank_scenes: bool = False,
        **kwargs: Any,
    ) -> None:
        if is_main_process():
            write_rooms(data_root, rooms)
        barrier()
        super().__init__(split, data_root, **kwargs)
        if blank_scenes:
            # Right before packing: all else has been done with the points.
            self.pipeline.transforms.insert(-1, blank)
