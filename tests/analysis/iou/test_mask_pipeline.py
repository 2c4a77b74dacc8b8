"""Masks follow the geometry of their images through a test pipeline."""

from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip('mmpretrain')
from lm4ve.analysis.iou.mask_datasets import (  # noqa: E402
    MaskFollower,
    batches,
    open_masks,  # noqa: E402
)
from lm4ve.analysis.iou.pseudo_masks import IGNORED  # noqa: E402
from lm4ve.errors import UserError  # noqa: E402
from tests.analysis.iou.masks import pipeline, write_folder  # noqa: E402


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


def test_padding_does_not_count():
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
    with pytest.raises(UserError, match=r"pipeline\[1\].type='RandomFlip' must be one of"):
        MaskFollower(
            pipeline(
                dict(type='Resize', scale=(8, 8)), dict(type='RandomFlip', prob=1.0)
            ).transforms
        )


def test_a_pipeline_without_a_loader_gets_pixels(tmp_path):
    write_folder(tmp_path, 2)
    steps = pipeline(dict(type='Resize', scale=(8, 8)))
    items = open_masks(tmp_path, 'folder', steps)
    ((names, data, masks),) = batches(items, MaskFollower(steps.transforms), 2)
    assert [Path(n).name for n in names] == ['0.png', '1.png']
    assert len(data['inputs']) == 2 and data['inputs'][0].shape == (3, 8, 8)
    assert masks[0].shape == (8, 8)
