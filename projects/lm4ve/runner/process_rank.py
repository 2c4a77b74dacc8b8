"""Which process of a job this is, also before its processes have met."""

import os

import torch


def process_rank() -> int:
    """Return the rank of this process: of its group, or that its launcher has given it.

    Until the processes have a group, torchrun's variable counts, then Slurm's. MMEngine
    sets torchrun's on Slurm only when it makes the group.

    Returns:
        int: From 0; 0 without a launcher.
    """
    if torch.distributed.is_initialized():
        return torch.distributed.get_rank()
    rank = os.environ.get('RANK')
    if rank is None:
        rank = os.environ.get('SLURM_PROCID', '0')
    return int(rank)


def is_first_process() -> bool:
    """Return whether this is the process that prints and writes for the whole job."""
    return process_rank() == 0
