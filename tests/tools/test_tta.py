"""Test-time augmentation comes from the config, or from a task that offers one."""

import json

import pytest
import torch
from mmengine.registry import MODELS

from lm4ve.errors import UserError
from lm4ve.runner.config import read_config
from tests.helpers.tasks import CONFIGS
from tests.helpers.tools import run_tool_here

pytest.importorskip('mmpretrain')
pytest.importorskip('mmaction')


def start(config: str, tmp_path, *options: str) -> None:
    """Start a test of a checkpoint that is not there, with ``--tta``."""
    files = CONFIGS / config, tmp_path / 'none.pth'
    run_tool_here('test.py', *files, '--tta', '--work-dir', tmp_path, *options)


@pytest.mark.parametrize(
    'config, task',
    [
        ('video/videomae-demo_none_moving-digits.py', 'action recognition'),
        ('motion/vectornet-demo_none_sim.py', 'motion forecasting'),
    ],
)
def test_a_task_without_augmentation_refuses_it(config, task, tmp_path):
    with pytest.raises(UserError, match=f'--tta needs tta_model and tta_pipeline .* {task}'):
        start(config, tmp_path)


@pytest.mark.parametrize(
    'config', ['lm4ve/vit-demo_none_digits.py', 'pointcloud/pointbert-demo_none_primitives.py']
)
def test_images_are_flipped_and_clouds_drawn_as_their_config_says(config, tmp_path):
    with pytest.raises(UserError, match=r"none.pth' does not exist"):
        start(config, tmp_path)


def test_overrides_reach_the_model_below_the_wrapper(tmp_path):
    config, checkpoint = CONFIGS / 'lm4ve/vit-demo_none_digits.py', tmp_path / 'a.pth'
    torch.save(dict(state_dict=MODELS.build(read_config(config).model).state_dict()), checkpoint)
    few = 'test_dataloader.dataset.indices=8', 'test_dataloader.num_workers=0'
    arguments = config, checkpoint, '--tta', '--work-dir', tmp_path, '--out', tmp_path / 'o.json'
    options = '--out-item', 'metrics', '--cfg-options', *few, 'model.head.cal_acc=True'
    run_tool_here('test.py', *arguments, *options)
    assert 0 <= json.loads((tmp_path / 'o.json').read_text())['accuracy/top1'] <= 100
