"""The embedded data: what easy-vqa holds, and that pictures show the scenes."""

import json
import sys

import cv2
import numpy as np
import pytest

from lm4ve.demo_data import digit_scenes as ds
from lm4ve.demo_data import easy_vqa as ev
from lm4ve.registry import DATASETS
from lm4ve.tasks.vqa.datasets.digit_scenes import write_digit_scenes

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
    return write_digit_scenes(tmp_path_factory.mktemp('data') / 'digit-scenes', SMALL)


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
