"""Masks of every layout and kind, and that they follow the images' geometry."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope
from PIL import Image

from lm4ve.errors import UserError
from lm4ve.iou.mask_datasets import (
    IMAGENET_S_50,
    ImageNetS,
    MaskFolder,
    MaskFollower,
    batches,
    open_masks,
)
from lm4ve.iou.pseudo_masks import IGNORED
from tests.iou.masks import write_folder

pytest.importorskip('mmpretrain')


# ----------------------------------------------------------------------- geometry
def pipeline(*steps) -> Compose:
    init_default_scope('mmpretrain')
    return Compose([*steps, dict(type='PackInputs')])


def follow(steps, img, mask):
    follower = MaskFollower(pipeline(*steps).transforms)
    return follower('x', dict(img=img), mask)


@pytest.mark.parametrize('size', [(40, 61), (61, 40), (33, 33)])
def test_masks_follow_resizing_and_cropping(size):
    """A picture whose colour is its mask comes out with its mask."""
    mask = np.zeros(size, np.uint8)
    cv2.ellipse(mask, (size[1] // 3, size[0] // 2), (9, 14), 30, 0, 360, 1, -1)
    mask[:6, -6:] = IGNORED
    img = np.stack([255 * (mask == 1), 255 * (mask == IGNORED), 0 * mask], -1).astype(np.uint8)
    nearest = dict(interpolation='nearest', backend='pillow')
    crop = dict(type='CenterCrop', crop_size=24)
    packed, moved = follow(
        [dict(type='ResizeEdge', scale=28, edge='short', **nearest), crop], img, mask
    )
    pixels = packed['inputs'].numpy()
    assert moved.shape == (24, 24) and (moved == 1).any()
    assert np.array_equal(pixels[0] == 255, moved == 1)
    assert np.array_equal(pixels[1] == 255, moved == IGNORED)
    # With the interpolation of the recipes, edges blur and nothing else differs.
    packed, moved = follow(
        [
            dict(
                type='ResizeEdge', scale=28, edge='short', interpolation='bicubic', backend='pillow'
            ),
            crop,
        ],
        img,
        mask,
    )
    assert np.mean((packed['inputs'][0].numpy() >= 128) == (moved == 1)) > 0.98


def test_what_is_padded_does_not_count():
    img = np.full((10, 10, 3), 200, np.uint8)
    for step in (
        dict(type='CenterCrop', crop_size=14, auto_pad=True),
        dict(type='Pad', size=(14, 14)),
    ):
        packed, moved = follow([step], img, np.ones((10, 10), np.uint8))
        padded = packed['inputs'][0].numpy() == 0
        assert padded.sum() == 14 * 14 - 10 * 10
        assert np.array_equal(moved == IGNORED, padded)


def test_a_transform_that_masks_cannot_follow_is_refused():
    with pytest.raises(UserError, match=r'pipeline\[1\] is RandomFlip'):
        MaskFollower(
            pipeline(
                dict(type='Resize', scale=(8, 8)), dict(type='RandomFlip', prob=1.0)
            ).transforms
        )


# ---------------------------------------------------------------------- data sets
def write_imagenet_s(root: Path, ids: np.ndarray, name=IMAGENET_S_50[2]) -> Path:
    for part, suffix in (('validation', 'JPEG'), ('validation-segmentation', 'png')):
        (root / part / name).mkdir(parents=True, exist_ok=True)
        rgb = np.stack([ids % 256, ids // 256, 0 * ids], -1).astype(np.uint8)
        Image.fromarray(rgb).save(root / part / name / f'a.{suffix}')
    return root


def test_imagenet_s_foreground_is_the_images_own_class(tmp_path):
    ids = np.array([[3, 0, 1000], [3, 7, 256 + 3], [0, 3, 1000]])
    data = ImageNetS(write_imagenet_s(tmp_path, ids))
    assert len(data) == 1
    name, sample, mask = data[0]
    assert name == sample['img_path'] and name.endswith('n01531178/a.JPEG')
    i = IGNORED
    assert mask.tolist() == [[1, 0, i], [1, 0, 0], [0, 1, i]]


def test_larger_imagenet_s_takes_its_own_list_of_classes(tmp_path):
    write_imagenet_s(tmp_path, np.full((2, 2), 300), 'n00000300')
    with pytest.raises(UserError, match="folder 'n00000300', which is not in"):
        ImageNetS(tmp_path)
    names = [f'n{i:08d}' for i in range(1, 400)]
    (tmp_path / 'ImageNetS_categories_im399.txt').write_text('\n'.join(names))
    assert (ImageNetS(tmp_path)[0][2] == 1).all()


def test_the_list_of_imagenet_s_50_is_whole():
    assert len(set(IMAGENET_S_50)) == 50
    assert list(IMAGENET_S_50) == sorted(IMAGENET_S_50)
    assert all(re.fullmatch(r'n\d{8}', c) for c in IMAGENET_S_50)


def masks_of(mode: str) -> Image.Image:
    values = np.array([[0, 1], [255, 7]], np.uint8)
    if mode == 'P':
        image = Image.fromarray(values)
        # Colours that would mislead: 0 is white, all else black.
        image.putpalette([255] * 3 + [0] * 3 * 255)
        return image
    if mode in ('RGB', 'RGBA'):
        opaque = np.full_like(values, 255)
        channels = [0 * values, values, 0 * values, opaque]
        return Image.fromarray(np.stack(channels[: len(mode)], -1))
    if mode == 'LA':
        return Image.fromarray(np.stack([values, np.full_like(values, 255)], -1))
    return (
        Image.fromarray(values).convert(mode)
        if mode != 'I;16'
        else (Image.fromarray(values.astype(np.uint16)))
    )


@pytest.mark.parametrize('mode', ['P', 'L', 'LA', '1', 'I', 'I;16', 'RGB', 'RGBA'])
def test_masks_of_any_kind_are_foreground_above_0(tmp_path, mode):
    for name in ('images', 'masks'):
        (tmp_path / name / 'deep').mkdir(parents=True)
    Image.new('RGB', (2, 2)).save(tmp_path / 'images/deep/x.jpg')
    suffix = 'tif' if mode == 'I' else 'png'  # Pillow writes no PNG of 32 bits
    masks_of(mode).save(tmp_path / f'masks/deep/x.{suffix}')
    # '1' holds what is above 127.
    expected = [[0, 0], [1, 0]] if mode == '1' else [[0, 1], [1, 1]]
    assert Image.open(next((tmp_path / 'masks/deep').iterdir())).mode == mode
    assert MaskFolder(tmp_path)[0][2].tolist() == expected
    if mode in ('P', 'L'):
        expected[1][0] = IGNORED
        assert MaskFolder(tmp_path, ignored=255)[0][2].tolist() == expected


def test_a_pipeline_without_a_loader_gets_pixels(tmp_path):
    write_folder(tmp_path, 2)
    steps = pipeline(dict(type='Resize', scale=(8, 8)))
    items = open_masks(tmp_path, 'folder', steps)
    ((names, data, masks),) = batches(items, MaskFollower(steps.transforms), 2)
    assert [Path(n).name for n in names] == ['0.png', '1.png']
    assert len(data['inputs']) == 2 and data['inputs'][0].shape == (3, 8, 8)
    assert masks[0].shape == (8, 8)


def test_imagenet_s_masks_must_be_rgb(tmp_path):
    write_imagenet_s(tmp_path, np.full((2, 2), 3))
    (path,) = tmp_path.glob('validation-segmentation/*/*.png')
    Image.fromarray(np.full((2, 2), 3, np.uint8)).save(path)
    with pytest.raises(UserError, match='has mode L; ImageNet-S'):
        ImageNetS(tmp_path)[0]


def test_an_unknown_layout_is_refused(tmp_path):
    with pytest.raises(UserError, match="layout='voc' must be one of imagenet-s"):
        open_masks(tmp_path, 'voc', Compose([]))


def test_images_of_two_sizes_do_not_share_a_batch():
    steps = pipeline()
    items = [
        (f'{n}', dict(img=np.ones((n, n, 3), np.uint8)), np.ones((n, n), np.uint8)) for n in (8, 9)
    ]
    with pytest.raises(UserError, match=r'9 leaves the pipeline with \(9, 9\)'):
        list(batches(items, MaskFollower(steps.transforms), 2))
