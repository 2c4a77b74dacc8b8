"""The embedded data: what easy-vqa holds, and that scenes, captions and answers are true."""

import collections
import json
import re
import sys

import cv2
import numpy as np
import pytest

from lm4ve.registry import DATASETS
from lm4ve.tasks.vqa.demo import digit_scenes as ds
from lm4ve.tasks.vqa.demo import easy_vqa as ev

LOAD = [dict(type='mmcv.LoadImageFromFile'), dict(type='lm4ve.PackVisionLanguage')]
SMALL = dict(train=60, val=8, test=20)


def easy(split: str, **options):
    return DATASETS.build(
        dict(type='lm4ve.EasyVQA', split=split, verify=False, **options)
    )


def questions(split: str) -> list[tuple[str, str, int]]:
    data = easy(split)
    infos = (data.get_data_info(i) for i in range(len(data)))
    return [(d['text'][0], d['gt_answers'][0], d['image_id']) for d in infos]


def test_easy_vqa_is_complete_without_importing_it():
    before = set(sys.modules)
    train, test, fit, val = map(questions, ('train', 'test', 'fit', 'val'))
    assert (len(train), len(test)) == (38575, 9673)
    assert [len({q[2] for q in s}) for s in (train, test, fit, val)] == [
        4000,
        1000,
        3600,
        400,
    ]
    assert sorted(fit + val) == sorted(train) and not {q[2] for q in fit} & {
        q[2] for q in val
    }
    assert (
        list(ev.ANSWERS) == (ev.locate_easy_vqa() / 'answers.txt').read_text().split()
    )
    assert {a for _, a, _ in train} == {a for _, a, _ in test} == set(ev.ANSWERS)
    assert not any(
        m.split('.')[0] in ('easy_vqa', 'test') for m in set(sys.modules) - before
    )


def test_blank_images_keep_only_the_question():
    plain = easy('test', pipeline=LOAD, indices=4)
    blank = easy('test', pipeline=LOAD, indices=4, blank_images=True)
    for a, b in zip(plain, blank, strict=True):
        assert a['inputs'].unique().numel() > 1 == b['inputs'].unique().numel()
        assert a['inputs'].shape == b['inputs'].shape == (3, 64, 64)
        assert a['data_samples'].text == b['data_samples'].text


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return ds.write_digit_scenes(
        tmp_path_factory.mktemp('data') / 'digit-scenes', SMALL
    )


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


@pytest.mark.parametrize('split', list(SMALL))
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


@pytest.mark.parametrize('split', list(SMALL))
def test_pictures_have_ink_where_digits_are(split, folder):
    scenes = []
    for line in (folder / f'{split}_scenes.jsonl').read_text().splitlines():
        scenes.append(json.loads(line))
    # The same each time.
    again = ds.scenes(split, SMALL[split] + 2, train=SMALL['train'])
    for line, scene in zip(scenes, again, strict=False):
        assert line['digits'] == scene.digits.tolist()
        picture = cv2.imread(str(folder / line['image']), cv2.IMREAD_GRAYSCALE)
        cells = picture.reshape(ds.GRID, ds.CELL, ds.GRID, ds.CELL).astype(float)
        # A digit may reach a little into the cell beside it.
        has_ink = cells[:, 4:12, :, 4:12].mean((1, 3)) > 20
        np.testing.assert_array_equal(has_ink, scene.digits >= 0)
