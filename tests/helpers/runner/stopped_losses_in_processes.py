"""What ``test_finite_loss.py`` runs in each of two processes: RANK and a folder.

The first process gets a signal. The second one alone has a loss that is NaN, which no
read has come to when the checkpoint of the signal is due.
"""

import os
import signal
import sys
import time
from pathlib import Path

import torch.distributed as dist
from mmengine.hooks import Hook

from lm4ve.errors import UserError
from lm4ve.runner.stop_hook import StopHook
from lm4ve.runner.stopping import handle_signals
from tests.helpers.runner.scripted import Scripted, scripted_runner

#: At a tenth of a second each, more than the processes need to agree.
STEPS = 600


class SlowHook(Hook):
    """Slows the steps down; sends the signal in the third one if it is asked to."""

    def __init__(self, sends: bool) -> None:
        self.sends = sends

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        time.sleep(0.1)
        if self.sends and runner.iter == 2:
            os.kill(os.getpid(), signal.SIGUSR1)


def main() -> None:
    rank = int(sys.argv[1])
    folder = Path(sys.argv[2])
    store = f'file://{folder / "store"}'
    dist.init_process_group('gloo', store, rank=rank, world_size=2)
    losses = [1.0] * STEPS
    if rank == 1:
        losses[2] = float('nan')
    runner = scripted_runner(
        folder / 'work',
        Scripted(losses),
        save=STEPS,
        hook=dict(interval=STEPS),
        custom_hooks=[SlowHook(sends=rank == 0), StopHook()],
    )
    try:
        with handle_signals():
            runner.train()
    except UserError as e:
        print(e)
    dist.destroy_process_group()


if __name__ == '__main__':
    main()
