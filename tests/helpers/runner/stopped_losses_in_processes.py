"""What ``test_finite_loss.py`` runs in each of two processes: RANK and a folder.

The first process gets a signal in the iteration in which the second one alone has a loss
that is NaN.
"""

import os
import signal
import sys
from pathlib import Path

import torch.distributed as dist
from mmengine.hooks import Hook

from lm4ve.errors import UserError
from lm4ve.runner.ending.signals import handle_signals
from tests.helpers.runner.scripted import Scripted, scripted_runner

STEPS = 600


class SignalHook(Hook):
    """Sends the signal in the third iteration."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == 2:
            os.kill(os.getpid(), signal.SIGUSR1)


def main() -> None:
    rank = int(sys.argv[1])
    folder = Path(sys.argv[2])
    store = f'file://{folder / "store"}'
    dist.init_process_group('gloo', store, rank=rank, world_size=2)
    losses = [1.0] * STEPS
    hooks = []
    if rank == 0:
        hooks.append(SignalHook())
    else:
        losses[2] = float('nan')
    runner = scripted_runner(
        folder / 'work', Scripted(losses), save=STEPS, custom_hooks=hooks
    )
    try:
        with handle_signals():
            runner.train()
    except UserError as e:
        print(e)
    dist.destroy_process_group()


if __name__ == '__main__':
    main()
