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


REFUSED = [
    ('video/videomae-demo_none_moving-digits.py', '--tta needs .* action recognition'),
    ('lm4ve/vit-demo_none_digits.py', r"none.pth' does not exist"),
]


@pytest.mark.parametrize('config, words', REFUSED)
def test_only_tasks_with_augmentation_take_it(config, words, tmp_path):
    files = CONFIGS / config, tmp_path / 'none.pth'
    with pytest.raises(UserError, match=words):
        run_tool_here('test.py', *files, '--tta', '--work-dir', tmp_path)


def test_overrides_reach_the_model_below_the_wrapper(tmp_path):
    config, checkpoint = CONFIGS / 'lm4ve/vit-demo_none_digits.py', tmp_path / 'a.pth'
    torch.save(dict(state_dict=MODELS.build(read_config(config).model).state_dict()), checkpoint)
    few = 'test_dataloader.dataset.indices=8', 'test_dataloader.num_workers=0'
    arguments = config, checkpoint, '--tta', '--work-dir', tmp_path, '--out', tmp_path / 'o.json'
    options = '--out-item', 'metrics', '--cfg-options', *few, 'model.head.cal_acc=True'
    run_tool_here('test.py', *arguments, *options)
    assert 0 <= json.loads((tmp_path / 'o.json').read_text())['accuracy/top1'] <= 100
