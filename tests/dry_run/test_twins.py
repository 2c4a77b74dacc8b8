"""The dry run names one picture in training and validation, or under two labels."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image

pytest.importorskip('mmpretrain')

from mmpretrain.datasets import KFoldDataset

from lm4ve.dry_run import twins
from lm4ve.dry_run.finding import Verdict
from lm4ve.dry_run.plan import Plan
from lm4ve.errors import TooLargeError
from lm4ve.tasks.image import CheckedImageFolder
from tests.helpers.image.images import fill


@pytest.fixture
def root(tmp_path):
    for seed, split in enumerate(('train', 'val')):
        for label in 'ab':
            for number in range(4):
                rng = np.random.default_rng([seed, ord(label), number])
                noise = cv2.GaussianBlur(rng.normal(128, 400, (40, 40, 3)), (0, 0), 5)
                path = tmp_path / split / label / f'{number}.png'
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(path)
    return tmp_path


def find(root, **fields):
    plan = Plan(lambda: None, root)
    for split in ('train', 'val'):
        data = CheckedImageFolder(data_root=str(root / split), pipeline=[], **fields)
        plan.loaders[split] = SimpleNamespace(dataset=data)
    return twins.check_twins(plan)


def test_different_pictures_are_no_problem(root):
    finding = find(root)
    assert finding.verdict is Verdict.OK
    assert finding.text == '16 of 16 pictures compared'


def test_a_twin_in_validation_and_one_of_another_label_are_named(root):
    with Image.open(root / 'train/a/1.png') as image:
        image.save(root / 'val/a/9.webp', lossless=True)
    with Image.open(root / 'train/a/2.png') as image:
        image.save(root / 'train/b/9.jpg', quality=80)
    finding = find(root)
    assert finding.verdict is Verdict.WARNING
    first, second = finding.text.split('Fix: ')[:2]
    assert '1 picture(s) are in train and val' in first
    assert 'train/a/1.png' in first and 'val/a/9.webp' in first
    assert '1 picture(s) have several labels' in second
    assert 'train/a/2.png' in second and 'train/b/9.jpg' in second


def test_of_large_data_a_part_is_compared(root, monkeypatch):
    monkeypatch.setattr(twins, '_COMPARED', 8)
    assert find(root).text == '8 of 16 pictures compared'
    monkeypatch.setattr(twins, '_PATIENCE', 0.0)
    assert find(root).text == '0 of 16 pictures compared'


def test_damaged_pictures_are_left_to_others_and_large_ones_refused(root):
    (root / 'train/a/1.png').write_bytes(b'')
    (root / 'val/a/1.png').write_bytes(b'')
    assert find(root).verdict is Verdict.OK
    with pytest.raises(TooLargeError, match='max_pixels=1000'):
        find(root, max_pixels=1000)


def test_folds_of_one_data_set_share_nothing(tmp_path):
    fill(tmp_path, 'ab')
    plan = Plan(lambda: None, tmp_path)
    for split, is_test in (('train', False), ('val', True)):
        data = dict(type=CheckedImageFolder, data_root=str(tmp_path), pipeline=[])
        fold = KFoldDataset(data, num_splits=2, test_mode=is_test)
        plan.loaders[split] = SimpleNamespace(dataset=fold)
    finding = twins.check_twins(plan)
    assert finding.text == '6 of 6 pictures compared'
    assert finding.verdict is Verdict.OK
