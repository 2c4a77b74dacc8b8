"""What ``test_ending_in_processes.py`` runs in each of two processes: a training with a fault.

Its words are a folder and what happens. The processes are started as by ``srun``, with the
variables of torchrun: nothing collects their errors.
"""

import errno
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, METRICS

from lm4ve.errors import UserError
from lm4ve.runner.command_line import build_runner, run_tool
from tests.helpers.runner.random_run import EPOCHS, config
from tests.helpers.runner.toy import Score

METRICS.register_module(module=Score)
#: The iteration, from 1, in which something happens; the epochs have five.
AT = 7
#: What the second process alone gets.
SIGNALS = {
    'SIGTERM': signal.SIGTERM,
    'SIGUSR1': signal.SIGUSR1,
    'SIGUSR2': signal.SIGUSR2,
    'SIGKILL': signal.SIGKILL,
}


@HOOKS.register_module()
class FaultHook(Hook):
    """Lets something happen to one process, or to both.

    Args:
        fault (str): What.
        rank (int): Of this process.
    """

    def __init__(self, fault: str, rank: int) -> None:
        self.fault = fault
        self.rank = rank

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter + 1 != AT:
            return
        if self.fault == 'mistake':
            raise UserError('The data do not fit the model.')
        if self.rank == 0:
            return
        if self.fault in SIGNALS:
            os.kill(os.getpid(), SIGNALS[self.fault])
        elif self.fault == 'worker':
            (worker,) = multiprocessing.active_children()
            os.kill(worker.pid, signal.SIGKILL)
        elif self.fault == 'alone':
            raise UserError('A file of this machine is damaged.')

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        # Without it, all iterations may be done before a signal is heard.
        time.sleep(0.05)

    def before_val_epoch(self, runner):
        print('validates', runner.iter)

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if self.fault == 'validation' and batch_idx == 0:
            os.kill(os.getpid(), signal.SIGTERM)

    def before_save_checkpoint(self, runner, checkpoint):
        if self.fault == 'SIGUSR1 twice':
            os.kill(os.getpid(), signal.SIGUSR1)
            os.kill(os.getpid(), signal.SIGUSR1)


@HOOKS.register_module()
class BadLossHook(Hook):
    """Makes a loss NaN, before any other hook sees it."""

    priority = 'HIGHEST'

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter + 1 == AT:
            outputs['loss'] *= torch.nan


def fill_disk() -> None:
    """Let the disk be full from the second checkpoint on."""
    sync = os.fsync
    large = []

    def fsync(descriptor: int) -> None:
        if os.fstat(descriptor).st_size > 4096:
            large.append(descriptor)
        if len(large) > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    os.fsync = fsync


def validation() -> dict:
    """Return a config's fields for a validation after each epoch."""
    data = dict(
        dataset=dict(type='Augmented'),
        batch_size=4,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
    )
    score = dict(type='Score', values=[1.0] * EPOCHS)
    return dict(val_dataloader=data, val_cfg=dict(), val_evaluator=[score])


def main() -> None:
    folder = Path(sys.argv[1])
    fault = sys.argv[2]
    print('meets', flush=True)
    torch.distributed.init_process_group('gloo')
    rank = torch.distributed.get_rank()
    hooks = [
        dict(type='EMAHook', momentum=0.1),
        dict(type='FaultHook', fault=fault, rank=rank),
    ]
    if fault == 'loss' and rank == 1:
        hooks.append(dict(type='BadLossHook'))
    if fault == 'disk' and rank == 0:
        fill_disk()
    cfg = config(
        folder / 'work',
        workers=1,
        hooks=hooks,
        interval=3,
        launcher='pytorch',
        resume=True,
        model_wrapper_cfg=dict(
            type='MMDistributedDataParallel', broadcast_buffers=False, device_ids=None
        ),
        **validation(),
    )
    cfg.train_dataloader.batch_size = 2
    build_runner(cfg).train()


if __name__ == '__main__':
    run_tool(main)
