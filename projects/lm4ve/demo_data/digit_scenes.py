"""Scenes of handwritten digits on a grid, with captions and questions.

For seeing retrieval and question answering train. The digits are scikit-learn's scans,
and no scan of a held-out scene occurs in training. Captions say how digits lie to each
other ("a 7 left of a 3"), so that knowing which digits a scene has is not enough to tell
it from all others.
"""

import itertools
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from lm4ve.demo_data.digits import digit_scans

#: Cells a side of the grid.
GRID = 3
#: Pixels a side of a cell.
CELL = 16
#: Pixels a side of a picture.
SIZE = GRID * CELL
#: Scenes of each split.
SCENES = {'train': 4000, 'val': 500, 'test': 500}
#: How many digits a scene has, from the fewest to the most.
DIGITS = (5, 7)
#: Side of a digit in pixels, at least and at most.
SIDES = (11.0, 15.0)
#: How far a digit's middle is from its cell's at most, in x and in y, pixels.
JITTER = 1.5
#: Brightness of a digit, at least and at most.
INK = (160.0, 255.0)
#: Captions of a scene, and questions about it.
CAPTIONS = 3
QUESTIONS = 5
#: Facts in a caption.
FACTS = 3
#: A fact (first digit, where, second digit) in words; both wordings have one meaning.
WORDINGS = {
    'left': ('a {0} left of a {1}', 'a {1} right of a {0}'),
    'above': ('a {0} above a {1}', 'a {1} below a {0}'),
}
#: Where a question looks: rows and columns from the digit that it names.
STEPS = {'left of': (0, -1), 'right of': (0, 1), 'above': (-1, 0), 'below': (1, 0)}
_SEEDS = {'train': 0, 'val': 1, 'test': 2}
Fact = tuple[int, str, int]


@dataclass(frozen=True)
class Scene:
    """A scene in words and numbers.

    Args:
        digits (np.ndarray): int ``[GRID, GRID]``, the digit of each cell, -1 where it
            is empty.
        captions (tuple[str, ...]): :data:`CAPTIONS` of them, all different.
        questions (tuple[dict, ...]): With ``question``, ``answer`` and ``answer_type``,
            as VQAv2 names them ('yes/no', 'number', 'other').
    """

    digits: np.ndarray
    captions: tuple[str, ...]
    questions: tuple[dict, ...]


def neighbors(digits: np.ndarray, down: int, right: int) -> list[tuple[int, int]]:
    """Return each digit with the one so many rows and columns away, where there is one."""
    around = np.pad(digits, 1, constant_values=-1)
    beside = np.roll(around, (-down, -right), (0, 1))[1:-1, 1:-1]
    pairs = []
    for a, b in zip(digits.ravel().tolist(), beside.ravel().tolist(), strict=True):
        if a >= 0 and b >= 0:
            pairs.append((a, b))
    return pairs


def facts_of(digits: np.ndarray) -> list[Fact]:
    """Return what lies beside what: each pair of neighbors, left one or upper one first."""
    facts = [(a, 'left', b) for a, b in neighbors(digits, 0, 1)]
    facts += [(a, 'above', b) for a, b in neighbors(digits, 1, 0)]
    return list(dict.fromkeys(facts))


def questions_of(digits: np.ndarray) -> list[dict]:
    """Return all questions about a scene that have one answer, with it.

    Args:
        digits (np.ndarray): int ``[GRID, GRID]``, -1 where a cell is empty.
    """
    counts = np.bincount(digits[digits >= 0], minlength=10).tolist()
    questions = []
    for digit, count in enumerate(counts):
        is_there = 'yes' if count else 'no'
        questions.append(_question(f'is there a {digit}?', is_there, 'yes/no'))
        text = f'how many {digit}s are there?'
        questions.append(_question(text, str(count), 'number'))
    for words, (down, right) in STEPS.items():
        for digit, beside in neighbors(digits, down, right):
            if counts[digit] == 1:  # "the 7" has to be the only one
                text = f'which digit is {words} the {digit}?'
                questions.append(_question(text, str(beside), 'other'))
    return questions


def _question(text: str, answer: str, answer_type: str) -> dict:
    return dict(question=text, answer=answer, answer_type=answer_type)


def scenes(
    split: str, count: int | None = None, train: int | None = None
) -> Iterator[Scene]:
    """Generate a split.

    Args:
        split (str): 'train', 'val' or 'test'.
        count (int, optional): How many scenes; default: :data:`SCENES`.
        train (int, optional): How many scenes the training split has; no caption of
            'val' or 'test' is true of any of them, in whatever words. Default:
            :data:`SCENES`.

    Yields:
        Scene: The same ones each time.
    """
    if count is None:
        count = SCENES[split]
    rng = np.random.default_rng(_SEEDS[split])
    scenes_with: dict[Fact, set[int]] = defaultdict(set)
    if split != 'train':
        for number, scene in enumerate(scenes('train', train)):
            for fact in facts_of(scene.digits):
                scenes_with[fact].add(number)
    made = 0
    while made < count:
        digits = _draw_digits(rng)
        free = []
        for facts in itertools.combinations(facts_of(digits), FACTS):
            if not _scenes_with_all(facts, scenes_with):
                free.append(facts)
        # Too few neighbors, or scenes of the training split are like it: draw another
        # one.
        if len(free) < CAPTIONS:
            continue
        captions = _draw_captions(free, rng)
        yield Scene(digits, captions, _draw_questions(digits, rng))
        made += 1


def _draw_digits(rng: np.random.Generator) -> np.ndarray:
    """Put some digits into the cells of a grid, int ``[GRID, GRID]``."""
    filled = int(rng.integers(DIGITS[0], DIGITS[1] + 1))
    drawn = rng.integers(0, 10, filled)
    chosen = rng.permutation(GRID * GRID)[:filled]
    cells = np.full(GRID * GRID, -1)
    cells[chosen] = drawn
    return cells.reshape(GRID, GRID)


def _scenes_with_all(
    facts: tuple[Fact, ...], scenes_with: dict[Fact, set[int]]
) -> set[int]:
    """Return the scenes of which all facts are true."""
    first, *others = facts
    found = set(scenes_with[first])
    for fact in others:
        found &= scenes_with[fact]
    return found


def _draw_captions(
    free: list[tuple[Fact, ...]], rng: np.random.Generator
) -> tuple[str, ...]:
    """Word some of the sets of facts, each in an order and wording that are drawn."""
    captions = []
    for number in rng.permutation(len(free))[:CAPTIONS]:
        words = []
        for i in rng.permutation(FACTS):
            a, where, b = free[number][i]
            wording = WORDINGS[where][rng.integers(2)]
            words.append(wording.format(a, b))
        captions.append(', '.join(words[:-1]) + ' and ' + words[-1])
    return tuple(captions)


def _draw_questions(digits: np.ndarray, rng: np.random.Generator) -> tuple[dict, ...]:
    """Draw questions: 'yes' and 'no' alike often, and no kind more than its share."""
    kinds: dict[str, list[dict]] = defaultdict(list)
    for question in questions_of(digits):
        kind = question['answer_type']
        if kind == 'yes/no':
            kind = question['answer']
        kinds[kind].append(question)
    names = list(kinds)
    drawn: dict[str, dict] = {}
    while len(drawn) < QUESTIONS:
        of_kind = kinds[names[rng.integers(len(names))]]
        question = of_kind[rng.integers(len(of_kind))]
        drawn[question['question']] = question
    return tuple(drawn.values())


def draw(
    digits: np.ndarray, scans: dict[int, np.ndarray], rng: np.random.Generator
) -> np.ndarray:
    """Draw a scene.

    Args:
        digits (np.ndarray): int ``[GRID, GRID]``, -1 where a cell is empty.
        scans (dict[int, np.ndarray]): For each digit its scans, ``[S, 8, 8]``, 0 to 16.
        rng (np.random.Generator): Where the randomness comes from.

    Returns:
        np.ndarray: uint8 ``[SIZE, SIZE]``, ink bright on black.
    """
    picture = np.zeros((SIZE, SIZE), np.float32)
    for row, column in np.argwhere(digits >= 0):
        of_digit = scans[int(digits[row, column])]
        scan = of_digit[rng.integers(len(of_digit))].astype(np.float32) / 16
        side = rng.uniform(*SIDES)
        middle_of_cell = CELL * (np.array((column, row)) + 0.5)
        middle = middle_of_cell + rng.uniform(-JITTER, JITTER, 2)
        # From the scan's 8 pixels to the picture's; pixel centers are half a pixel from
        # the corner.
        scale = side / 8
        shift = middle - side / 2 + scale / 2 - 0.5
        matrix = np.column_stack((scale * np.eye(2), shift))
        ink = cv2.warpAffine(scan, matrix, (SIZE, SIZE)) * rng.uniform(*INK)
        picture = np.maximum(picture, ink)
    return np.rint(picture).clip(0, 255).astype(np.uint8)


def pictures(split: str, count: int, train: int) -> Iterator[tuple[Scene, np.ndarray]]:
    """Generate a split, each scene with a picture of it, drawn with this split's scans only.

    Args:
        split (str): 'train', 'val' or 'test'.
        count (int): How many scenes.
        train (int): How many scenes the training split has, see :func:`scenes`.

    Yields:
        tuple[Scene, np.ndarray]: The same ones each time, the picture as of
        :func:`draw`.
    """
    images, labels = digit_scans()[split]
    scans = {digit: images[labels == digit] for digit in range(10)}
    rng = np.random.default_rng((_SEEDS[split], 2))
    for scene in scenes(split, count, train):
        yield scene, draw(scene.digits, scans, rng)
