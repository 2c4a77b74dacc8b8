"""Random draws of a block that do not depend on those before, and leave no trace."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def kept_cpu_generator() -> Iterator[None]:
    """Restore the state of torch's global CPU generator at the end.

    The CPU's alone: ``torch.manual_seed`` and ``torch.random.fork_rng`` would touch
    CUDA's too.
    """
    state = torch.default_generator.get_state()
    try:
        yield
    finally:
        torch.default_generator.set_state(state)


@contextmanager
def seeded_cpu_generator(seed: int) -> Iterator[None]:
    """Draw from torch's global CPU generator by a seed, and restore its state."""
    with kept_cpu_generator():
        torch.default_generator.manual_seed(seed)
        yield
