"""The command line tools, run as a user runs them."""

import json
import os
import subprocess

import pytest
import torch

from tests.helpers.tasks import ROOT
from tests.helpers.tools import run_tool_here

pytest.importorskip('mmpretrain')
DEMO = ROOT / 'configs/lm4ve/vit-demo_minilm_digits.py'
SHORT = [
    'train_cfg.max_epochs=2',
    'train_cfg.val_interval=2',
    'param_scheduler.total_steps=2',
    'default_hooks.checkpoint.interval=1',
    'train_dataloader.dataset.indices=128',
]


@pytest.mark.slow
def test_train_resume_and_test_agree(tmp_path):
    arguments = DEMO, '--work-dir', tmp_path
    run_tool_here('train.py', *arguments, '--cfg-options', *SHORT)
    longer = [o.replace('=2', '=3') for o in SHORT]
    run_tool_here('train.py', *arguments, '--resume', '--cfg-options', *longer)
    checkpoint = tmp_path / 'epoch_3.pth'
    assert torch.load(checkpoint, weights_only=True)['meta']['epoch'] == 3
    out = '--out', tmp_path / 'out.json', '--out-item', 'metrics'
    run_tool_here('test.py', DEMO, checkpoint, '--work-dir', tmp_path, *out)
    metrics = json.loads((tmp_path / 'out.json').read_text())
    logged = [
        row
        for path in tmp_path.glob('*/vis_data/scalars.json')
        for row in map(json.loads, path.read_text().splitlines())
        if row.get('step') == 3 and 'accuracy/top1' in row
    ]
    assert metrics['accuracy/top1'] == pytest.approx(logged[0]['accuracy/top1'])
    assert list(tmp_path.glob('*/vis_data/events.out.tfevents.*'))


@pytest.mark.parametrize(
    'options, found',
    [
        (
            ['model.neck.block.checkpoint=./nowhere/llama'],
            r"block.checkpoint='./nowhere/llama' does not exist",
        ),
        (['model.neck.in_channels=32'], 'Fix: set model.neck.in_channels=64'),
        (['load_from=./nowhere/a.pth'], "load_from='./nowhere/a.pth' does not exist"),
    ],
    ids=['checkpoint missing', 'width', 'start missing'],
)
def test_mistakes_end_in_one_message(tmp_path, options, found, fails):
    arguments = DEMO, '--work-dir', tmp_path, '--cfg-options', *SHORT, *options
    assert found in fails('train.py', *arguments)
    assert not list(tmp_path.glob('*.pth'))


def test_an_unsafe_checkpoint_ends_in_one_message(tmp_path, fails):
    target = tmp_path / 'ran'

    class Payload:
        def __reduce__(self):
            return os.system, (f'touch {target}',)

    torch.save(dict(state_dict=Payload()), tmp_path / 'bad.pth')
    arguments = DEMO, tmp_path / 'bad.pth', '--work-dir', tmp_path
    assert 'could run code' in fails('test.py', *arguments)
    assert not target.exists()


@pytest.mark.slow
def test_demo_prints_one_table_of_what_was_measured(tmp_path, capfd):
    run_tool_here('demo.py', '--work-dir', tmp_path, '--cfg-options', *SHORT)
    table = capfd.readouterr().out.rpartition('held-out')[2]
    for word in ('ViT + frozen MiniLM block', '1,774,464', 'MB', 'tensorboard', 'epoch_2.pth'):
        assert word in table


@pytest.mark.parametrize(
    'script', ['dist_train.sh', 'dist_test.sh', 'slurm_train.sh', 'slurm_test.sh']
)
def test_shell_scripts_say_how_to_call_them(script):
    done = subprocess.run(
        ['bash', ROOT / 'tools' / script], text=True, capture_output=True, check=False
    )
    assert done.returncode == 2
    assert f'tools/{script} ' in done.stderr


def test_slurm_script_passes_its_arguments_on(tmp_path):
    srun = tmp_path / 'srun'
    srun.write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$@"\n')
    srun.chmod(0o755)
    done = subprocess.run(
        ['bash', ROOT / 'tools/slurm_train.sh', 'part', 'job', 'cfg.py', 'work', '--amp'],
        text=True,
        capture_output=True,
        check=True,
        env={**os.environ, 'PATH': f'{tmp_path}:{os.environ["PATH"]}', 'GPUS': '16'},
    )
    wanted = 'part --gres=gpu:8 --ntasks=16 --ntasks-per-node=8 cfg.py --work-dir=work'
    assert {*wanted.split(), '--launcher=slurm', '--amp'} <= {*done.stdout.splitlines()}
