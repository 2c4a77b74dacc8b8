"""The tool: from images, masks and a checkpoint to tables, files and pictures."""

import json

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from mmengine.model import ImgDataPreprocessor
from mmengine.registry import MODELS
from torch import nn

from lm4ve.errors import UserError
from tests.helpers.tools import run_tool_here

pytest.importorskip('mmpretrain')
from pathlib import Path

from mmengine.dataset import Compose
from mmengine.registry import init_default_scope
from mmpretrain.models.classifiers.base import BaseClassifier  # noqa: E402
from PIL import Image

from tools.analysis.iou.mask_datasets import IMAGENET_S_50, folder, follow, imagenet_s
from tools.analysis.iou.pseudo_masks import IGNORED


def score(config, options: str):
    """Run the tool on an untrained model; return its report."""
    return run_tool_here('analysis/activation_iou.py', config, 'none', *options.split())


# ------------------------------------------------------------------------- models
class Paint(nn.Module):
    """One channel a token: -1 where half of the patch is bright, else 1."""

    def forward(self, x):
        bright = nn.functional.avg_pool2d(x[:, :1], 4) >= 127
        return (1 - 2 * bright.float()).flatten(2).transpose(1, 2)


class Flat(nn.Module):
    """The same for every token."""

    def forward(self, x):
        return torch.ones(*x.shape[:2], 6) / 3


@MODELS.register_module(force=True)
class MaskIsTheActivation(BaseClassifier):
    """What it makes of a white-on-black picture is the picture's mask."""

    def __init__(self, data_preprocessor=None):
        super().__init__(data_preprocessor=ImgDataPreprocessor())
        self.paint, self.flat = Paint(), Flat()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, inputs, data_samples=None, mode='tensor'):
        self.flat(self.paint(inputs))
        return list(range(len(inputs)))


CONFIG = """
default_scope = 'mmpretrain'
model = dict(type='mmengine.MaskIsTheActivation')
test_dataloader = dict(dataset=dict(type='CustomDataset', pipeline=[
    dict(type='LoadImageFromFile'), dict(type='Resize', scale=(16, 16)),
    dict(type='PackInputs')]))
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / 'mask_model.py'
    path.write_text(CONFIG)
    return path


def test_perfect_maps_score_1_and_constant_ones_the_prior(config, tmp_path, capsys):
    masks = write_folder(tmp_path / 'data')
    report = score(
        config,
        f'--data-root {tmp_path}/data --layout folder --points mask=paint '
        f'constant=flat --bootstrap 50 --batch-size 4 --out-dir {tmp_path}/out',
    )
    share = [(m.reshape(4, 4, 4, 4).mean((1, 3)) >= 127.5) for m in masks]
    kept = [s.mean() for s in share if s.any()]
    assert report.images == len(kept) >= 8 and len(report.empty) == 10 - len(kept)
    prior = report.frame['iou'][0]
    assert prior == pytest.approx(np.mean(kept), abs=1e-12)
    keys = ['table', 'measure', 'point', 'variant', 'threshold_choice']
    found = report.frame.groupby(keys)['iou'].first()['rows']
    for measure in ('magnitude', 'frequency'):
        for choice in ('best per image', 'fixed'):
            assert found[measure, 'mask', 'as is', choice] == 1
            assert found[measure, 'mask', 'inverted', choice] == 0
        constant = found[measure, 'constant'].unstack()['best per image']
        assert constant.to_list() == pytest.approx([prior] * 3, abs=1e-12)

    shown = capsys.readouterr().out
    assert 'untrained weights' in shown and '100.0 [100.0, 100.0]' in shown
    written = json.loads((tmp_path / 'out/iou.json').read_text())
    assert written['images'] == report.images and written['seed'] == 0
    assert len(written['rows']) == (report.frame['table'] == 'rows').sum()
    table = pd.read_csv(tmp_path / 'out/iou.csv', keep_default_na=False)
    assert table['iou'].to_list() == pytest.approx(report.frame['iou'].to_list())
    for name in ('iou', 'pseudo_masks'):
        assert cv2.imread(str(tmp_path / f'out/{name}.png')).std() > 1


# --------------------------------------------------------------------- bad inputs
@pytest.fixture
def data(tmp_path):
    """Flags to read three images, of which the mask of one has no foreground."""
    write_folder(tmp_path / 'data', 3)
    cv2.imwrite(str(tmp_path / 'data/masks/1.png'), np.zeros((16, 16), np.uint8))
    return f'--data-root {tmp_path}/data --layout folder --points mask=paint'


def test_unfit_data_is_refused_by_name(config, tmp_path, data):
    with pytest.raises(UserError, match=r'images/1.png: its mask has no foreground'):
        score(config, f'{data} --out-dir {tmp_path}/out')
    (tmp_path / 'data/masks/1.png').unlink()
    with pytest.raises(UserError, match=r"images/1.png' has no mask '.*masks/1.png'"):
        score(config, f'{data} --out-dir {tmp_path}/out')
    assert not (tmp_path / 'out').exists()


def test_images_without_foreground_can_be_passed_over(config, tmp_path, data, capsys):
    assert (
        score(config, f'{data} --out-dir {tmp_path} --bootstrap 9 --skip-empty').images
        == 2
    )
    shown = capsys.readouterr().out  # the threshold of one image is tried on one
    assert '(one image)' in shown and 'nan [' not in shown


def write_folder(root: Path, count=10) -> list:
    """White rectangles on black, and they are the masks too; returns the masks."""
    rng = np.random.default_rng(0)
    masks = []
    for i in range(count):
        mask = np.zeros((16, 16), np.uint8)
        y, x = rng.integers(0, 8, 2)
        mask[y : y + rng.integers(4, 8), x : x + rng.integers(4, 8)] = 255
        for name in ('images', 'masks'):
            (root / name).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(root / name / f'{i}.png'), mask)
        masks.append(mask)
    return masks


def test_imagenet_s_foreground_is_the_images_own_class(tmp_path):
    ids = np.array([[3, 0, 1000], [3, 7, 256 + 3], [0, 3, 1000]])
    rgb = Image.fromarray(
        np.stack([ids % 256, ids // 256, 0 * ids], -1).astype(np.uint8)
    )
    for part, suffix in (('validation', 'JPEG'), ('validation-segmentation', 'png')):
        path = tmp_path / part / IMAGENET_S_50[2] / f'a.{suffix}'
        path.parent.mkdir(parents=True)
        rgb.save(path)
    (read,) = imagenet_s(tmp_path)
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
    if mode in ('1', 'I;16'):
        return Image.fromarray(
            values.astype(np.uint16) if mode == 'I;16' else values
        ).convert(mode)
    layers = [values] if mode == 'LA' else [0 * values, values, 0 * values]
    return Image.fromarray(np.stack([*layers, np.full_like(values, 255)], -1))


@pytest.mark.parametrize('mode', ['P', 'LA', '1', 'I;16', 'RGBA'])
def test_masks_of_any_kind_are_foreground_above_0(tmp_path, mode):
    for name in ('images', 'masks'):
        (tmp_path / name / 'deep').mkdir(parents=True)
    Image.new('RGB', (2, 2)).save(tmp_path / 'images/deep/x.jpg')
    masks_of(mode).save(tmp_path / 'masks/deep/x.png')
    # '1' holds what is above 127.
    expected = [[0, 0], [1, 0]] if mode == '1' else [[0, 1], [1, 1]]
    assert Image.open(tmp_path / 'masks/deep/x.png').mode == mode
    assert folder(tmp_path)[0]()[2].tolist() == expected
    if mode == 'P':
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
    img = np.stack([255 * (mask == 1), 255 * (mask == IGNORED), 0 * mask], -1).astype(
        np.uint8
    )

    def moved(interpolation):
        edge = dict(
            scale=28, edge='short', interpolation=interpolation, backend='pillow'
        )
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
        packed, moved = follow(
            pipeline(step), 'x', dict(img=img), np.ones((10, 10), np.uint8)
        )
        padded = packed['inputs'][0].numpy() == 0
        assert padded.sum() == 14 * 14 - 10 * 10
        assert np.array_equal(moved == IGNORED, padded)


def test_a_transform_that_masks_cannot_follow_is_refused():
    steps = pipeline(
        dict(type='Resize', scale=(8, 8)), dict(type='RandomFlip', prob=1.0)
    )
    with pytest.raises(UserError, match="'RandomFlip' must be one of"):
        follow(
            steps,
            'x',
            dict(img=np.zeros((9, 9, 3), np.uint8)),
            np.ones((9, 9), np.uint8),
        )
