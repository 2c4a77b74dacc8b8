"""The command line tools, run as a user runs them."""

import json
import os

import pytest
import torch
from mmengine.registry import MODELS

from lm4ve.errors import UserError
from lm4ve.runner.config import read_config
from tests.helpers.tasks import CONFIGS, ROOT
from tests.helpers.tools import run_command, run_tool_here

pytest.importorskip('mmpretrain')
DEMO = CONFIGS / 'lm4ve/vit-demo_minilm_digits.py'
PLAIN = CONFIGS / 'lm4ve/vit-demo_none_digits.py'
TRAFFIC = CONFIGS / 'motion/vectornet-demo_none_sim.py'
CLOUDS = CONFIGS / 'pointcloud/pointbert-demo_none_primitives.py'
SHORT = [
    'train_cfg.max_epochs=2',
    'train_cfg.val_interval=2',
    'param_scheduler.total_steps=2',
    'default_hooks.checkpoint.interval=1',
    'train_dataloader.dataset.indices=128',
]

UNSUITABLE = [
    ('pointcloud/draw.py', DEMO, "this tool is for 'pointcloud'"),
    ('motion/draw.py', CLOUDS, "this tool is for 'motion'"),
    ('motion/submit.py', TRAFFIC, 'Argoverse 1 or 2'),
]


@pytest.mark.parametrize('tool, config, words', UNSUITABLE)
def test_unsuitable_config_is_refused(tool, config, words, fails, tmp_path):
    checkpoint = [tmp_path / 'model.pth'] if 'submit' in tool else []
    assert words in fails(tool, config, *checkpoint, tmp_path / 'out.h5')


@pytest.mark.slow
def test_demo_prints_one_table_of_what_was_measured(tmp_path, capfd):
    run_tool_here('demo.py', '--work-dir', tmp_path, '--cfg-options', *SHORT)
    table = capfd.readouterr().out.rpartition('held-out')[2]
    assert 'ViT + frozen MiniLM block' in table
    for word in ('1,774,464', 'MB', 'tensorboard', 'epoch_2.pth'):
        assert word in table


def test_slurm_script_passes_its_arguments_on(tmp_path):
    srun = tmp_path / 'srun'
    srun.write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$@"\n')
    srun.chmod(0o755)
    words = ['part', 'job', 'cfg.py', 'work', '--amp']
    env = {**os.environ, 'PATH': f'{tmp_path}:{os.environ["PATH"]}', 'GPUS': '16'}
    done = run_command('bash', ROOT / 'tools/slurm_train.sh', *words, env=env)
    expected = (
        'part --gres=gpu:8 --ntasks=16 --ntasks-per-node=8 '
        'cfg.py --work-dir=work --launcher=slurm --amp'
    )
    assert set(expected.split()) <= set(done.stdout.splitlines())


def test_only_tasks_with_augmentation_take_it(tmp_path):
    pytest.importorskip('mmaction')
    config = CONFIGS / 'video/videomae-demo_none_moving-digits.py'
    checkpoint = tmp_path / 'a.pth'
    checkpoint.touch()
    with pytest.raises(UserError, match='--tta needs .* action recognition'):
        run_tool_here('test.py', config, checkpoint, '--tta', '--work-dir', tmp_path)


def test_overrides_reach_the_model_below_the_wrapper_of_augmentation(tmp_path):
    model = MODELS.build(read_config(PLAIN).model)
    checkpoint = tmp_path / 'a.pth'
    torch.save(dict(state_dict=model.state_dict()), checkpoint)
    out = tmp_path / 'o.json'
    words = (
        f'--tta --work-dir {tmp_path} --out {out} --out-item metrics --cfg-options '
        'test_dataloader.dataset.indices=8 test_dataloader.num_workers=0 '
        'model.head.cal_acc=True'
    )
    run_tool_here('test.py', PLAIN, checkpoint, *words.split())
    assert 0 <= json.loads(out.read_text())['accuracy/top1'] <= 100
