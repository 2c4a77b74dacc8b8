"""Images are trained as by the released loop (tools/dev/released/image_loop.py)."""

import numpy as np
import pytest
import torch
from mmengine.registry import DATASETS
from mmpretrain.structures import DataSample
from torch.utils.data import Dataset

from lm4ve.runner.config import read_config
from lm4ve.runner.ema import KeptEMAHook
from lm4ve.tasks.image.converters import VIT_LLAMA_RULES, convert_vit
from tests.helpers.image import given
from tests.helpers.released_loop import (
    GivenRates,
    ReleasedLoop,
    assert_rounded,
    loader_of,
    rates_in_row,
    train,
)
from tests.helpers.stored_results import (
    assert_equal_rows,
    read_stored,
    write_llama,
)
from tests.helpers.tasks import FOLDERS
from tools.dev.released.loops import copy_tensors

STORED = read_stored('image_loop')
#: Of relative errors. The block's norms compute in float32, also here, whose rounding is
#: 6e-8; everything else in float64.
BOUND = 1e-6


@DATASETS.register_module()
class GivenPictures(Dataset):
    """The pictures of an epoch, in the released order; BGR, as our pipelines load them."""

    metainfo = dict(classes=[str(i) for i in range(given.CLASSES)])

    def __len__(self):
        return len(STORED['order'])

    def __getitem__(self, index):
        number = STORED['order'][index]
        bgr = given.pictures()[number][::-1].copy()
        sample = DataSample().set_gt_label(given.labels()[number])
        return dict(inputs=torch.from_numpy(bgr), data_samples=sample)


def mix_as_released(patch):
    """Let mmpretrain mix with what timm drew; its partner is at the other end of the batch."""
    draws = STORED['draws']
    boxes = draws[draws[:, 0] == 1]
    kinds, scales, centres = map(iter, (draws[:, 0], draws[:, 1:3], boxes[:, 3:].flat))

    def beta(*parameters):
        parameter, value = next(scales)
        assert parameters == (parameter, parameter)
        return value

    patch.setattr(np.random, 'choice', lambda *_, **__: int(next(kinds)))
    patch.setattr(np.random, 'beta', beta)
    patch.setattr(np.random, 'randint', lambda *_, **__: int(next(centres)))
    patch.setattr(torch, 'randperm', lambda size: torch.arange(size).flip(0))


@pytest.fixture(scope='module')
def loop():
    return ReleasedLoop(STORED, VIT_LLAMA_RULES)


@pytest.fixture(scope='module')
def trained(loop, tmp_path_factory):
    """Train 30 steps by the shipped config, small."""
    folder = tmp_path_factory.mktemp('loop')
    llm = write_llama(folder / 'llama', loop.state, given.LLAMA['n_heads'])
    start = dict(state_dict=convert_vit(loop.state, llm))
    torch.save(start, folder / 'start.pth')
    cfg = read_config(FOLDERS['image'] / 'vit-s_llama_in1k.py')
    cfg.update(work_dir=str(folder), load_from=str(folder / 'start.pth'))
    sizes = given.VIT
    width = sizes['embed_dim']
    cfg.model.backbone.update(
        img_size=sizes['img_size'], patch_size=sizes['patch_size'], drop_path_rate=0.0
    )
    cfg.model.backbone.arch = dict(
        embed_dims=width,
        num_layers=sizes['depth'],
        num_heads=sizes['num_heads'],
        feedforward_channels=4 * width,
    )
    cfg.model.neck.in_channels = width
    cfg.model.neck.block.update(checkpoint=llm, dtype='float32')
    cfg.model.head.update(in_channels=width, num_classes=given.CLASSES)
    cfg.data_preprocessor.num_classes = given.CLASSES
    cfg.train_dataloader = loader_of('mmengine.GivenPictures', given.BATCH)
    rates = GivenRates(loop.rates)
    with pytest.MonkeyPatch.context() as patch:
        mix_as_released(patch)
        runner = train(cfg, given.EPOCHS, rates, patch)
    return runner, rates


def test_groups_have_the_released_rates_and_decays(loop, trained):
    _, rates = trained
    assert rates.groups == loop.groups


def test_thirty_losses_are_the_released_ones(trained):
    _, rates = trained
    assert len(STORED['losses']) == 30
    np.testing.assert_allclose(rates.losses, STORED['losses'], rtol=BOUND)


def test_weights_move_as_in_the_release(loop, trained):
    runner, _ = trained
    found = loop.changes(copy_tensors(runner.model))
    assert_equal_rows(found, STORED['weights'], BOUND)


def test_average_of_weights_moves_as_in_the_release(loop, trained):
    runner, _ = trained
    (hook,) = [hook for hook in runner.hooks if isinstance(hook, KeptEMAHook)]
    found = loop.changes(copy_tensors(hook.ema_model.module))
    assert_equal_rows(found, STORED['average'], BOUND)


def test_recipe_quotes_the_released_rates_of_epochs():
    # Of the last group, which has the full rate.
    assert_rounded(STORED['schedule'][:, -1], rates_in_row('images'))
