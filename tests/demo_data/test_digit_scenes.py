"""Captions of the scenes of digits are true, and answers right."""

import collections
import re

import numpy as np
import pytest

from lm4ve.demo_data import digit_scenes as ds

#: Where the first digit of a caption's fact is, seen from the second.
PLACES = {'left of': (0, -1), 'right of': (0, 1), 'above': (-1, 0), 'below': (1, 0)}


def beside(digits: np.ndarray, cell: tuple[int, int], place: str) -> int:
    """The digit at a place seen from a cell; -1 if there is none or no such cell."""
    row, column = np.add(cell, PLACES[place])
    inside = 0 <= row < len(digits) and 0 <= column < len(digits)
    return digits[row, column] if inside else -1


def is_true(caption: str, digits: np.ndarray) -> bool:
    """Read a caption and look whether each of its facts holds somewhere."""
    facts = [
        re.fullmatch(r'a (\d) ([a-z ]+) a (\d)', fact).groups()
        for fact in re.split(', | and ', caption)
    ]
    return len(facts) == ds.FACTS and all(
        any(
            beside(digits, cell, place) == int(a)
            for cell in np.argwhere(digits == int(b))
        )
        for a, place, b in facts
    )


def answer_of(question: str, digits: np.ndarray) -> str:
    """Answer a question by looking at the grid."""
    is_there = re.fullmatch(r'is there a (\d)\?', question)
    if is_there:
        return 'yes' if int(is_there[1]) in digits else 'no'
    how_many = re.fullmatch(r'how many (\d)s are there\?', question)
    if how_many:
        return str((digits == int(how_many[1])).sum())
    which = re.fullmatch(r'which digit is ([a-z ]+) the (\d)\?', question)
    place, named = which.groups()
    (cell,) = np.argwhere(digits == int(named))  # "the" one
    return str(beside(digits, cell, place))


@pytest.mark.parametrize('split', ['train', 'val', 'test'])
def test_captions_are_true_and_answers_right(split):
    asked = collections.Counter()
    for scene in ds.scenes(split, 60, train=100):
        assert ds.DIGITS[0] <= (scene.digits >= 0).sum() <= ds.DIGITS[1]
        assert len(set(scene.captions)) == ds.CAPTIONS
        assert all(is_true(caption, scene.digits) for caption in scene.captions)
        texts = {question['question'] for question in scene.questions}
        assert len(texts) == ds.QUESTIONS
        for question in scene.questions:
            answer = question['answer']
            assert answer == answer_of(question['question'], scene.digits)
            asked[question['answer_type'], answer] += 1
    kinds = {kind for kind, _ in asked}
    assert kinds == {'yes/no', 'number', 'other'}
    assert 0.6 < asked['yes/no', 'yes'] / asked['yes/no', 'no'] < 1.7
