"""Which process of a job this is, and whether all processes agree."""

import os
from typing import Any

import torch
from mmengine.dist import all_gather_object, barrier


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


def find_difference(value: Any) -> tuple[Any, int, Any] | None:
    """Compare a value of all processes, which have to call this together.

    Before it returns a difference it waits for the others: a process that ends at once
    would break their gathering.

    Args:
        value: Is sent to the others by pickle.

    Returns:
        tuple | None: The first process's value, and the rank and the value of the first
        process that has another; None if all are equal.
    """
    everyone: list[Any] = all_gather_object(value)
    for rank, other in enumerate(everyone):
        if other != everyone[0]:
            barrier()
            return everyone[0], rank, other
    return None
