"""What ``test_distributed.py`` runs: a command that fails in a group that cannot be left.

Its words are a folder and how it fails. The worker of its dataloader has more to hand over
than a pipe takes, so that it cannot end by itself.
"""

import os
import signal
import sys
import time
from pathlib import Path

import torch.distributed as dist
from torch.utils.data import DataLoader

from lm4ve.errors import UserError
from lm4ve.runner.command_line import run_tool


def wait_for_ever() -> None:
    """Stands for ``destroy_process_group`` on nccl, while other processes wait."""
    time.sleep(3600)


def large(sample: list) -> bytes:
    return bytes(1 << 20)


def main() -> None:
    loader = DataLoader(range(100), num_workers=1, collate_fn=large)
    batches = iter(loader)
    print(len(next(batches)))
    match sys.argv[2]:
        case 'error':
            raise MemoryError('CUDA out of memory')
        case 'user':
            raise UserError('The disk is full.')
        case 'signal':
            os.kill(os.getpid(), signal.SIGTERM)
        case 'exit':
            sys.exit(141)


if __name__ == '__main__':
    place = f'file://{Path(sys.argv[1]) / "store"}'
    dist.init_process_group('gloo', place, rank=0, world_size=1)
    dist.destroy_process_group = wait_for_ever
    run_tool(main)
