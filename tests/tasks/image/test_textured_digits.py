"""Digits on photographs: the same each time, with masks that are the strokes."""

import numpy as np

from lm4ve.tasks.image import DigitsDataset, TexturedDigits
from lm4ve.tasks.image.demo import textured_digits as td


def dataset(split='test', **kwargs) -> TexturedDigits:
    return TexturedDigits(split=split, pipeline=[], **kwargs)


def test_picture_is_determined_by_its_parameters():
    first, again = dataset(variants=2)[3], dataset(variants=5, indices=10)[3]
    for key in ('img', 'gt_mask', 'gt_label', 'photograph'):
        assert np.array_equal(first[key], again[key]), key
    count = len(dataset())
    other_variant = dataset(variants=2)[3 + count]
    other_seed = dataset(seed=1)[3]
    for other in (other_variant, other_seed):
        assert other['gt_label'] == first['gt_label']
        assert not np.array_equal(other['img'], first['img'])


def test_the_mask_is_where_strokes_were_pasted():
    """On a black background the picture is ink times color, and nothing else."""
    ink = (
        DigitsDataset(split='test', pipeline=[])[0]['img'][..., 0].astype(np.float32)
        / 255
    )
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


def test_splits_share_neither_digits_nor_photographs():
    sizes = {split: len(dataset(split)) for split in ('train', 'fit', 'val', 'test')}
    assert sizes == dict(train=1257, fit=1005, val=252, test=540)
    parts = {split: set(td.PHOTOGRAPHS[split]) for split in ('fit', 'val', 'test')}
    assert len(set.union(*parts.values())) == sum(map(len, parts.values()))
    assert set(td.PHOTOGRAPHS['train']) == parts['fit'] | parts['val']
    data = dataset('test')
    assert {data[i]['photograph'] for i in range(60)} == parts['test']
