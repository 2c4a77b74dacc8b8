"""Digits on photographs and on nothing: splits share none, masks are the strokes."""

import numpy as np
import pytest

from lm4ve.demo_data import textured_digits as td
from lm4ve.demo_data.digits import DIGITS, digit_pictures, digit_scans
from lm4ve.errors import UserError


@pytest.mark.parametrize('seed', [None, 3])
def test_pictures_are_cut_into_splits_that_share_none(seed):
    parts = [digit_pictures(split, seed)[0] for split in ('fit', 'val', 'test')]
    # Another seed moves a digit or two: shares of each class are rounded.
    assert [len(part) for part in parts] == pytest.approx([1005, 252, 540], abs=2)
    everything = np.rint(np.load(DIGITS)['images'] * (255 / 16)).astype(np.uint8)
    assert sorted_rows(np.concatenate(parts)) == sorted_rows(everything)
    train, _ = digit_pictures('train', seed)
    assert sorted_rows(train) == sorted_rows(np.concatenate(parts[:2]))


def sorted_rows(pictures: np.ndarray) -> list[bytes]:
    return sorted(picture.tobytes() for picture in pictures)


def test_a_split_that_there_is_not_is_refused():
    with pytest.raises(UserError, match='split'):
        digit_pictures('training')


def test_scans_to_paint_with_are_in_one_split_each():
    scans = digit_scans()
    assert {split: len(labels) for split, (_, labels) in scans.items()} == dict(
        train=1078, val=359, test=360
    )
    for images, labels in scans.values():
        assert images.max() == 16
        assert np.bincount(labels).min() > 30


def test_the_mask_is_where_strokes_were_pasted():
    """On a black background the picture is ink times color, and nothing else."""
    pictures, _ = digit_pictures('test')
    ink = pictures[0].astype(np.float32) / 255
    background = np.zeros((td.SIZE, td.SIZE, 3), np.float32)
    for seed in range(5):
        img, mask = td.paste(
            ink, background, np.random.default_rng(seed), max_angle=15.0
        )
        share = img.max(-1) / img.max()
        assert set(np.unique(mask)) == {0, 1}
        assert (share[mask == 1] > td.INK - 0.02).all()
        assert (share[mask == 0] < td.INK + 0.02).all()
        # All of the digit is in the picture: its ink is as large as its box.
        assert mask[[0, -1]].sum() + mask[:, [0, -1]].sum() < 0.2 * mask.sum()


def test_splits_share_no_photograph():
    parts = {split: set(td.PHOTOGRAPHS[split]) for split in ('fit', 'val', 'test')}
    assert len(set.union(*parts.values())) == sum(map(len, parts.values()))
    assert set(td.PHOTOGRAPHS['train']) == parts['fit'] | parts['val']
