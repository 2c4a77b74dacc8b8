"""Masks of every layout are read, and follow their images through a pipeline."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope
from PIL import Image

from lm4ve.analysis.iou.mask_datasets import IMAGENET_S_50, folder, follow, imagenet_s
from lm4ve.analysis.iou.pseudo_masks import IGNORED
from lm4ve.errors import UserError

pytest.importorskip('mmpretrain')


def write_folder(root: Path, count=10) -> list:
    """White rectangles on black, and they are the masks too; returns the masks."""
    rng = np.random.default_rng(0)
    masks = []
    for name in ('images', 'masks'):
        (root / name).mkdir(parents=True)
    for i in range(count):
        mask = np.zeros((16, 16), np.uint8)
        y, x = rng.integers(0, 8, 2)
        mask[y : y + rng.integers(4, 8), x : x + rng.integers(4, 8)] = 255
        cv2.imwrite(str(root / f'images/{i}.png'), mask)
        cv2.imwrite(str(root / f'masks/{i}.png'), mask)
        masks.append(mask)
    return masks


def write_imagenet_s(root: Path, ids: np.ndarray, name=IMAGENET_S_50[2]) -> Path:
    for part, suffix in (('validation', 'JPEG'), ('validation-segmentation', 'png')):
        (root / part / name).mkdir(parents=True, exist_ok=True)
        rgb = np.stack([ids % 256, ids // 256, 0 * ids], -1).astype(np.uint8)
        Image.fromarray(rgb).save(root / part / name / f'a.{suffix}')
    return root


def test_imagenet_s_foreground_is_the_images_own_class(tmp_path):
    ids = np.array([[3, 0, 1000], [3, 7, 256 + 3], [0, 3, 1000]])
    (read,) = imagenet_s(write_imagenet_s(tmp_path, ids))
    name, sample, mask = read()
    assert name == sample['img_path'] and name.endswith('n01531178/a.JPEG')
    i = IGNORED
    assert mask.tolist() == [[1, 0, i], [1, 0, 0], [0, 1, i]]


def masks_of(mode: str) -> Image.Image:
    values = np.array([[0, 1], [255, 7]], np.uint8)
    if mode == 'P':
        image = Image.fromarray(values)
        # Colours that would mislead: 0 is white, all else black.
        image.putpalette([255] * 3 + [0] * 3 * 255)
        return image
    opaque = np.full_like(values, 255)
    layers = dict(RGB=[0 * values, values, 0 * values], LA=[values, opaque])
    layers['RGBA'] = [*layers['RGB'], opaque]
    if mode in layers:
        return Image.fromarray(np.stack(layers[mode], -1))
    if mode in ('I;16', 'F'):
        return Image.fromarray(values.astype(np.uint16 if mode == 'I;16' else np.float32))
    return Image.fromarray(values).convert(mode)


@pytest.mark.parametrize('mode', ['P', 'L', 'LA', '1', 'I', 'I;16', 'F', 'RGB', 'RGBA'])
def test_masks_of_any_kind_are_foreground_above_0(tmp_path, mode):
    for name in ('images', 'masks'):
        (tmp_path / name / 'deep').mkdir(parents=True)
    Image.new('RGB', (2, 2)).save(tmp_path / 'images/deep/x.jpg')
    suffix = 'tif' if mode in 'IF' else 'png'  # Pillow writes no PNG of 32 bits
    masks_of(mode).save(tmp_path / f'masks/deep/x.{suffix}')
    # '1' holds what is above 127.
    expected = [[0, 0], [1, 0]] if mode == '1' else [[0, 1], [1, 1]]
    assert Image.open(next((tmp_path / 'masks/deep').iterdir())).mode == mode
    assert folder(tmp_path)[0]()[2].tolist() == expected
    if mode in ('P', 'L'):
        expected[1][0] = IGNORED
        assert folder(tmp_path, ignored=255)[0]()[2].tolist() == expected


# ----------------------------------------------------------------------- pipeline
def pipeline(*steps) -> list:
    init_default_scope('mmpretrain')
    return Compose([*steps, dict(type='PackInputs')]).transforms


@pytest.mark.parametrize('size', [(40, 61), (61, 40), (33, 33)])
def test_masks_follow_resizing_and_cropping(size):
    """A picture whose colour is its mask comes out with its mask."""
    mask = np.zeros(size, np.uint8)
    cv2.ellipse(mask, (size[1] // 3, size[0] // 2), (9, 14), 30, 0, 360, 1, -1)
    mask[:6, -6:] = IGNORED
    img = np.stack([255 * (mask == 1), 255 * (mask == IGNORED), 0 * mask], -1).astype(np.uint8)

    def moved(interpolation):
        edge = dict(scale=28, edge='short', interpolation=interpolation, backend='pillow')
        steps = dict(type='ResizeEdge', **edge), dict(type='CenterCrop', crop_size=24)
        packed, found = follow(pipeline(*steps), 'x', dict(img=img), mask)
        assert found.shape == (24, 24) and (found == 1).any()
        return packed['inputs'].numpy(), found

    pixels, found = moved('nearest')
    assert np.array_equal(pixels[0] == 255, found == 1)
    assert np.array_equal(pixels[1] == 255, found == IGNORED)
    # With the interpolation of the recipes, edges blur and nothing else differs.
    pixels, found = moved('bicubic')
    assert np.mean((pixels[0] >= 128) == (found == 1)) > 0.98


def test_padding_does_not_count():
    img = np.full((10, 10, 3), 200, np.uint8)
    for step in (
        dict(type='CenterCrop', crop_size=14, auto_pad=True),
        dict(type='Pad', size=(14, 14)),
    ):
        packed, moved = follow(pipeline(step), 'x', dict(img=img), np.ones((10, 10), np.uint8))
        padded = packed['inputs'][0].numpy() == 0
        assert padded.sum() == 14 * 14 - 10 * 10
        assert np.array_equal(moved == IGNORED, padded)


def test_a_transform_that_masks_cannot_follow_is_refused():
    steps = pipeline(dict(type='Resize', scale=(8, 8)), dict(type='RandomFlip', prob=1.0))
    with pytest.raises(UserError, match="'RandomFlip' must be one of"):
        follow(steps, 'x', dict(img=np.zeros((9, 9, 3), np.uint8)), np.ones((9, 9), np.uint8))
