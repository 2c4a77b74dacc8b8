"""Two CPU processes train a recognizer with the neck: DDP, gloo."""

import subprocess

import pytest

pytest.importorskip('mmaction')
from tests.engine.test_distributed import environment  # noqa: E402
from tests.helpers.tasks import FOLDERS, ROOT  # noqa: E402


@pytest.mark.slow
def test_two_processes_train(tmp_path):
    """DDP stops at the second step if a parameter was not reached."""
    config = FOLDERS['video'] / 'videomae-demo_minilm_moving-digits.py'
    options = [
        'train_cfg.max_epochs=2',
        'param_scheduler.total_steps=2',
        'train_dataloader.batch_size=4',
    ]
    for loader in ('train', 'val', 'test'):
        dataset = f'{loader}_dataloader.dataset'
        options += [
            f'{dataset}.data_root={tmp_path}/data/digits',
            f'{loader}_dataloader.num_workers=0',
        ]
        options += [f'{dataset}.clips.{k}={v}' for k, v in dict(train=16, val=8, test=8).items()]
    work = tmp_path / 'work'

    done = subprocess.run(
        [
            'bash',
            ROOT / 'tools/dist_train.sh',
            config,
            '2',
            '--work-dir',
            work,
            '--cfg-options',
            *options,
        ],
        env=environment(),
        text=True,
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    # One of them wrote the videos, the other waited.
    assert (tmp_path / 'data/digits/recipe.json').is_file()
    assert (work / 'epoch_2.pth').is_file()
