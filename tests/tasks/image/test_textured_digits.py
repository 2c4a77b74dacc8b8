"""The data set of digits on photographs: the same each time, splits share nothing."""

import numpy as np

from lm4ve.demo_data.textured_digits import PHOTOGRAPHS
from lm4ve.tasks.image import TexturedDigits


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


def test_splits_share_neither_digits_nor_photographs():
    sizes = {split: len(dataset(split)) for split in ('train', 'fit', 'val', 'test')}
    assert sizes == dict(train=1257, fit=1005, val=252, test=540)
    data = dataset('test')
    assert {data[i]['photograph'] for i in range(60)} == set(PHOTOGRAPHS['test'])
