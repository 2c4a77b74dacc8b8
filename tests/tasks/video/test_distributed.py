"""Two CPU processes train a recognizer with the neck: DDP, gloo.

They do not fork from this process: after some backward passes torch refuses others in a fork.
The shell script that starts processes for users is tested in ``tests/runner/test_distributed.py``.
"""

import os
from pathlib import Path

import pytest
import torch
from torch.multiprocessing import start_processes

pytest.importorskip('mmaction')
from lm4ve.runner.command_line import build_runner  # noqa: E402
from tests.runner.test_distributed import free_port  # noqa: E402
from tests.tasks.video.shrink import Shrinker  # noqa: E402

CONFIG = 'videomae-demo_minilm_moving-digits.py'


def train(rank: int, folder: Path, port: int) -> None:
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE='2',
        MASTER_ADDR='127.0.0.1',
        MASTER_PORT=str(port),
    )
    runner = build_runner(Shrinker(folder).load(CONFIG, folder / 'work', launcher='pytorch'))
    assert type(runner.model).__name__ == 'MMDistributedDataParallel'
    runner.train()
    assert runner.iter == 2
    torch.distributed.destroy_process_group()


def test_two_processes_train(tmp_path):
    """DDP stops at the second step if a parameter was not reached."""
    start_processes(train, (tmp_path, free_port()), nprocs=2, start_method='forkserver')
    # One of them wrote the videos, the other waited.
    assert (tmp_path / 'moving-digits/recipe.json').is_file()
    assert (tmp_path / 'work/epoch_1.pth').is_file()
