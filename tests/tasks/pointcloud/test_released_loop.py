"""Clouds are trained as by the released loop (tools/dev/released/cloud_loop.py)."""

import numpy as np
import pytest
import torch
from mmengine.registry import DATASETS
from torch.utils.data import Dataset

from lm4ve.runner.config import read_config
from lm4ve.tasks.pointcloud import PointCloudDataSample
from lm4ve.tasks.pointcloud.converters import LLAMA_RULES, convert_pointbert
from tests.helpers.pointcloud import given
from tests.helpers.released_loop import (
    GivenRates,
    ReleasedLoop,
    assert_rounded,
    loader_of,
    rates_in_row,
    train,
)
from tests.helpers.stored_results import read_stored, write_llama
from tests.helpers.tasks import CONFIGS
from tools.dev.released.loops import copy_tensors

STORED = read_stored('cloud_loop')
#: The release's own groups, whose biases and norms have a tenth of the rate.
CONFIG = f"""
_base_ = [
    '{CONFIGS}/pointcloud/pointbert_llama_scanobjectnn-hardest.py',
    '{CONFIGS}/_base_/pointcloud/released_rates.py',
]
optim_wrapper = dict(paramwise_cfg=_base_.released_rates)
"""
#: Of relative errors. The block's norms compute in float32, also here, whose rounding is
#: 6e-8; everything else in float64.
BOUND = 1e-6


@DATASETS.register_module()
class GivenClouds(Dataset):
    """The clouds of all steps, as they are after augmentation; each epoch reads its own."""

    metainfo = dict(classes=[str(i) for i in range(40)])

    def __init__(self):
        self.batches = list(given.batches(given.LOOP_EPOCHS * given.STEPS_PER_EPOCH))
        self.drawn = 0

    def __len__(self):
        return given.STEPS_PER_EPOCH * given.BATCH

    def __getitem__(self, index):
        # One process draws all samples, an epoch after the other, in their order.
        step, place = divmod(self.drawn, given.BATCH)
        self.drawn += 1
        points, labels = self.batches[step]
        sample = PointCloudDataSample(gt_label=torch.tensor([labels[place]]))
        return dict(inputs=torch.from_numpy(points[place]), data_samples=sample)


@pytest.fixture(scope='module')
def loop():
    return ReleasedLoop(STORED, LLAMA_RULES)


@pytest.fixture(scope='module')
def trained(loop, tmp_path_factory):
    """Train 30 steps by the shipped config with the released rates, small."""
    folder = tmp_path_factory.mktemp('loop')
    llm = write_llama(folder / 'llama', loop.state, given.LLAMA['n_heads'])
    start = dict(state_dict=convert_pointbert(loop.state, llm))
    torch.save(start, folder / 'start.pth')
    (folder / 'config.py').write_text(CONFIG)
    cfg = read_config(folder / 'config.py')
    cfg.update(work_dir=str(folder), load_from=str(folder / 'start.pth'))
    sizes = given.SMALL
    width = sizes['trans_dim']
    cfg.model.checkpoint = None
    cfg.model.backbone.update(
        embed_dims=width,
        depth=sizes['depth'],
        num_heads=sizes['num_heads'],
        num_groups=sizes['num_group'],
        group_size=sizes['group_size'],
        encoder_dims=sizes['encoder_dims'],
        drop_path_rate=0.0,
    )
    cfg.model.neck.in_channels = width
    cfg.model.neck.block.checkpoint = llm
    # The release has 40 outputs for 15 classes; ModelNet40's config has 40.
    modelnet40 = read_config(CONFIGS / 'pointcloud/pointbert_modelnet40-1k.py')
    cfg.model.head.update(modelnet40.model.head, in_channels=width, dropout=0.0)
    cfg.train_dataloader = loader_of('mmengine.GivenClouds', given.BATCH)
    rates = GivenRates(loop.rates)
    with pytest.MonkeyPatch.context() as patch:
        runner = train(cfg, given.LOOP_EPOCHS, rates, patch)
    return runner, rates


def test_groups_have_the_released_rates_and_decays(loop, trained):
    _, rates = trained
    assert rates.groups == loop.groups


def test_thirty_losses_are_the_released_ones(trained):
    _, rates = trained
    assert len(STORED['losses']) == 30
    np.testing.assert_allclose(rates.losses, STORED['losses'], rtol=BOUND)


def test_gradients_that_are_clipped_have_the_released_norms(trained):
    _, rates = trained
    clipped = STORED['norms'] > 10
    assert clipped.any() and not clipped.all()
    np.testing.assert_allclose(rates.norms, STORED['norms'], rtol=BOUND)


def test_weights_and_statistics_move_as_in_the_release(loop, trained):
    runner, _ = trained
    found = loop.changes(copy_tensors(runner.model))
    errors = np.linalg.norm(found - STORED['weights'], axis=1)
    lengths = np.linalg.norm(STORED['weights'], axis=1)
    # A bias in front of a batch norm has no gradient but rounding, and moves by 1e-11.
    assert (errors <= BOUND * lengths + 1e-10).all(), errors / lengths


def test_recipe_quotes_the_released_rates_of_epochs():
    # Of the last group, which has the full rate.
    assert_rounded(STORED['schedule'][:, -1], rates_in_row('clouds'))
