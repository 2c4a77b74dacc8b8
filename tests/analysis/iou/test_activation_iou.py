"""The tool: from images, masks and a checkpoint to tables, files and pictures."""

import json
import runpy
from itertools import product

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from mmengine.model import ImgDataPreprocessor
from mmengine.registry import MODELS
from torch import nn

from lm4ve.errors import UserError
from tests.analysis.iou.test_mask_datasets import write_folder
from tests.helpers.tasks import ROOT

pytest.importorskip('mmpretrain')
from mmpretrain.models.classifiers.base import BaseClassifier  # noqa: E402

TOOL = runpy.run_path(str(ROOT / 'tools/analysis/activation_iou.py'))


def score(config, options: str):
    """Run the tool on an untrained model; return its report."""
    return TOOL['main']([str(config), 'none', *options.split()])


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


def test_the_demo_reports_every_measure_and_point(tmp_path):
    report = score(
        ROOT / 'configs/lm4ve/vit-demo_minilm_textured-digits.py',
        f'--bootstrap 20 --split val --out-dir {tmp_path} --cfg-options '
        'test_dataloader.dataset.indices=12',
    )
    assert report.images == 12 and report.fixing_images == 2
    tables = dict(list(report.frame.groupby('table')))
    measures = 'magnitude', 'frequency'
    points = [*product(measures, ('encoder', 'mapped', 'block', 'after'))]
    points += product(['attention'], ('encoder', 'block'))
    rows = tables['rows'].iloc[1:]
    assert {*zip(rows.measure, rows.point, strict=True)} == {*points}
    pairs = [*product(measures, ('after - encoder', 'block - mapped'))]
    pairs.append(('attention', 'block - encoder'))
    found = tables['differences']
    assert {*zip(found.measure, found.point, strict=True)} == {*pairs}
    assert {*rows[rows.measure == 'attention'].note} == {'class token'}
    assert ((rows.low <= rows.iou) & (rows.iou <= rows.high)).all()


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
    assert score(config, f'{data} --out-dir {tmp_path} --bootstrap 9 --skip-empty').images == 2
    shown = capsys.readouterr().out  # the threshold of one image is tried on one
    assert '(one image)' in shown and 'nan [' not in shown
