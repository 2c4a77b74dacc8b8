"""Operations on pictures that compat makes faster give the same pictures, bit for bit."""

import inspect

import cv2
import numpy as np
import pytest

import lm4ve  # noqa: F401  (applies the repairs)

mmcv = pytest.importorskip('mmcv')

RNG = np.random.default_rng(0)
SMOOTH = cv2.GaussianBlur(RNG.integers(0, 256, (61, 83, 3), dtype=np.uint8), (0, 0), 5)
PICTURES = dict(
    noise=RNG.integers(0, 256, (37, 41, 3), dtype=np.uint8),
    smooth=SMOOTH,
    mirrored=SMOOTH[:, ::-1],
    one_value=np.full((9, 7, 3), 200, np.uint8),
    two_values=RNG.choice(np.uint8([3, 250]), (16, 17, 3)),
    one_pixel=np.uint8([[[1, 2, 3]]]),
)
CALLS = [
    *((name, {}) for name in ('auto_contrast', 'imequalize', 'adjust_contrast')),
    ('auto_contrast', dict(cutoff=5)),
    *(('adjust_contrast', dict(factor=f)) for f in (0.0, 0.27, 1.9)),
]


@pytest.mark.parametrize('picture', PICTURES)
@pytest.mark.parametrize('name, options', CALLS, ids=str)
def test_functions_of_mmcv(name, options, picture):
    function, image = getattr(mmcv, name), PICTURES[picture]
    found, expected = function(image, **options), inspect.unwrap(function)(image, **options)
    assert found.dtype == expected.dtype and np.array_equal(found, expected)


def test_other_pictures_are_left_to_mmcv():
    values = RNG.uniform(0, 255, (5, 6, 3)).astype(np.float32)
    assert mmcv.adjust_contrast(values, 0.5).dtype == np.float32


@pytest.mark.parametrize('drawn', [True, False])
@pytest.mark.parametrize(
    'name, options',
    [
        ('Solarize', dict(thr=100.5)),
        ('SolarizeAdd', dict(magnitude=33.7)),
        ('SolarizeAdd', dict(magnitude=110, thr=90)),
        ('Posterize', dict(bits=3)),
    ],
    ids=str,
)
def test_operations_of_mmpretrain(name, options, drawn):
    auto_augment = pytest.importorskip('mmpretrain.datasets.transforms.auto_augment')
    operation = getattr(auto_augment, name)(prob=float(drawn), **options)
    image = PICTURES['noise']
    found = operation(dict(img=image, other=1))
    expected = inspect.unwrap(type(operation).transform)(operation, dict(img=image, other=1))
    assert np.array_equal(found['img'], expected['img']) and found['other'] == 1
    assert np.array_equal(found['img'], image) != drawn
