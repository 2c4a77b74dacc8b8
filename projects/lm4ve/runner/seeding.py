"""Seed the generators of random numbers from the run's seed and the number of a step."""

import random

import numpy as np
import torch

#: What a seed is for, so that data and steps draw different numbers.
DATA, STEP, PAUSE = range(3)


def seed_everything(*key: int) -> None:
    """Seed Python's, numpy's and torch's generators (those of GPUs too) from some numbers.

    Args:
        *key (int): Any numbers, also negative ones. Keys that differ in one of them give
            unrelated seeds.
    """
    # SeedSequence accepts no negative numbers.
    sequence = np.random.SeedSequence([number % 2**64 for number in key])
    words = sequence.generate_state(3, np.uint64)
    random.seed(int(words[0]))
    np.random.seed(words[1:2].view(np.uint32))
    torch.manual_seed(int(words[2]))
