"""How a training of two processes ends: at signals, faults of one process, and bad losses.

The processes are real, and share a group of gloo.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from lm4ve.runner.exit_codes import DONE, STOPPED, TRY_AGAIN, USERS_MISTAKE
from lm4ve.runner.resume import newest_checkpoint
from tests.helpers.processes import environment, free_port
from tests.helpers.tasks import ROOT
from tools.dev.check_resume import is_same, state_of

SCRIPT = ROOT / 'tests/helpers/runner/ending_in_processes.py'
#: The iteration in which the fault comes, and the iterations of the whole training.
AT = 7
LAST = 15


class Ended(NamedTuple):
    """A process that has ended."""

    code: int
    stdout: str
    #: What it printed of its end.
    error: str


def start(rank: int, port: int, folder: Path, fault: str, python: str = 'python'):
    env = environment() | dict(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE='2',
        MASTER_ADDR='127.0.0.1',
        MASTER_PORT=str(port),
        MKL_NUM_THREADS='1',
        PYTHONWARNINGS='ignore',
    )
    return subprocess.Popen(
        [python, SCRIPT, folder, fault],
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def train(folder: Path, fault: str = 'none') -> list[Ended]:
    """Train in two processes, one of which has a fault; return how both end."""
    port = free_port()
    jobs = [start(rank, port, folder, fault) for rank in range(2)]
    ended = []
    for job in jobs:
        stdout, stderr = job.communicate(timeout=300)
        # MMEngine's FutureWarnings precede it.
        lines = [
            line for line in stderr.splitlines() if line.startswith(('error', 'Stop'))
        ]
        # PyTorch's stacks of C++ have lines that begin so.
        assert 'frame #0' not in stderr and 'Traceback' not in stderr
        ended.append(Ended(job.returncode, stdout, '\n'.join(lines)))
    return ended


def saved(folder: Path) -> list[int]:
    """Return the iterations of the checkpoints, all of whose numbers are finite."""
    numbers = []
    for path in (folder / 'work').glob('iter_*.pth'):
        content = torch.load(path, weights_only=True)
        for key in ('state_dict', 'ema_state_dict'):
            for value in content[key].values():
                if torch.is_tensor(value):
                    assert torch.isfinite(value).all(), path
        numbers.append(content['meta']['iter'])
    return sorted(numbers)


@pytest.fixture(scope='module')
def whole(tmp_path_factory) -> Path:
    """Return the folder of an undisturbed training."""
    folder = tmp_path_factory.mktemp('whole')
    assert [each.code for each in train(folder)] == [DONE, DONE]
    return folder


@pytest.mark.parametrize('fault', ['SIGTERM', 'SIGUSR1', 'SIGUSR2', 'validation'])
def test_signal_stops_both_which_end_as_undisturbed(fault, tmp_path, whole):
    first, second = train(tmp_path, fault)
    assert first.code == second.code == STOPPED
    path, _ = newest_checkpoint(tmp_path / 'work')
    number = 'SIGTERM' if fault == 'validation' else fault
    assert first.error == f'Stopped by {number}. Saved: {path} (--resume).'
    assert second.error == ''
    if fault == 'validation':
        assert path.name == 'iter_5.pth'
    again = train(tmp_path)
    assert [each.code for each in again] == [DONE, DONE]
    ends = [folder / f'work/iter_{LAST}.pth' for folder in (whole, tmp_path)]
    assert is_same(*map(state_of, ends))


def test_second_signal_while_saving_changes_nothing(tmp_path):
    first, second = train(tmp_path, 'SIGUSR1 twice')
    assert first.code == second.code == STOPPED
    assert first.error.startswith('Stopped by SIGUSR1. Saved: ')


def test_bad_loss_of_one_ends_both_and_is_neither_saved_nor_validated(tmp_path):
    first, second = train(tmp_path, 'loss')
    assert first.code == second.code == USERS_MISTAKE
    assert f'loss (rank 1) of iteration {AT} (epoch 2) is nan' in first.error
    assert second.error == ''
    assert max(saved(tmp_path)) < AT
    assert 'validates 10' not in first.stdout + second.stdout


def test_full_disk_of_one_ends_both(tmp_path):
    first, second = train(tmp_path, 'disk')
    assert first.code == second.code == TRY_AGAIN
    assert first.error.endswith('No space left on device.')
    assert second.error == ''
    assert saved(tmp_path) == [3]


def test_error_that_both_have_is_printed_once(tmp_path):
    first, second = train(tmp_path, 'mistake')
    assert first.code == second.code == USERS_MISTAKE
    errors = sorted([first.error, second.error])
    assert errors == ['', 'error: The data do not fit the model.']


def test_error_of_one_is_printed_by_that_one(tmp_path):
    first, second = train(tmp_path, 'alone')
    assert (first.code, second.code) == (TRY_AGAIN, USERS_MISTAKE)
    assert second.error == 'error: A file of this machine is damaged.'
    assert 'another process has ended' in first.error


def test_killed_worker_is_named_by_its_process(tmp_path):
    first, second = train(tmp_path, 'worker')
    assert first.code == second.code == TRY_AGAIN
    assert 'a worker of a dataloader (process ' in second.error
    assert 'was killed by a signal: Killed (out of memory?)' in second.error


def test_killed_process_ends_the_other_in_seconds(tmp_path):
    first, second = train(tmp_path, 'SIGKILL')
    assert (first.code, second.code) == (TRY_AGAIN, -signal.SIGKILL)
    assert 'another process has ended' in first.error
    assert saved(tmp_path) == [3, 6]


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGUSR1])
def test_signal_ends_a_process_that_waits_for_the_other(number, tmp_path):
    """No handler of Python's would run there."""
    job = start(1, free_port(), tmp_path, 'none', sys.executable)
    assert job.stdout.readline() == 'meets\n'
    os.kill(job.pid, number)
    job.communicate(timeout=60)
    assert job.returncode == -number
