"""What ``test_finite_loss.py`` runs in each of two processes: RANK and a folder.

The loss of the second process alone is NaN in the third iteration.
"""

import sys
from pathlib import Path

import torch.distributed as dist

from lm4ve.errors import UserError
from tests.helpers.runner.scripted import Scripted, scripted_runner


def main() -> None:
    rank = int(sys.argv[1])
    folder = Path(sys.argv[2])
    store = f'file://{folder / "store"}'
    dist.init_process_group('gloo', store, rank=rank, world_size=2)
    losses = [1.0] * 8
    if rank == 1:
        losses[2] = float('nan')
    runner = scripted_runner(folder / 'work', Scripted(losses), save=4)
    try:
        runner.train()
    except UserError as e:
        print(runner.iter + 1, e)
    dist.destroy_process_group()


if __name__ == '__main__':
    main()
