"""Seed random numbers by the number of the iteration, so that resuming is exact.

A run that is killed and resumed must end with the weights of a run that was not. States
of generators cannot be saved for that: each worker of a dataloader has three of its own,
runs ahead of training, and is gone with the process. So nothing is saved. Every batch
of data and every step is given fresh seeds for Python, numpy and torch (CUDA too), drawn
from the run's seed and the number of the iteration. They are the same after any resume,
on every rank, and with any number of workers.
"""

import functools
import itertools
import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from lm4ve.errors import UserError

#: What a seed is for, so that data and steps draw different numbers.
DATA, STEP, PAUSE = range(3)


def seed_everything(*key: int) -> None:
    """Seed Python, numpy and torch (the current process's devices too) from some numbers.

    Args:
        *key (int): Any numbers; keys that differ in one of them give unrelated seeds.
    """
    mixed = np.random.SeedSequence([k % 2**64 for k in key]).generate_state(3, np.uint64)
    random.seed(int(mixed[0]))
    np.random.seed(mixed[1:2].view(np.uint32))
    torch.manual_seed(int(mixed[2]))


def _read_seeded(dataset: Any, read: Any, indices: Sequence[Any]) -> list[Any]:
    """Read a batch, seeded by the key that is before its indices."""
    if indices and isinstance(indices[0], tuple):
        key, *indices = indices
        seed_everything(*key)
    return list(read(indices)) if read is not None else [dataset[i] for i in indices]


class NumberedBatches(Sampler[list[Any]]):
    """A batch sampler that puts the key of its seeds before the indices of each batch.

    Args:
        batches (Sampler): The batch sampler to be numbered.
    """

    def __init__(self, batches: Any) -> None:
        self.batches = batches
        # What others read from a batch sampler: hooks, and MMEngine's strategies.
        self.sampler: Any = getattr(batches, 'sampler', None)
        self.batch_size: int | None = getattr(batches, 'batch_size', None)
        self.drop_last: bool = getattr(batches, 'drop_last', False)
        self.key: tuple[int, ...] = ()
        self.first = self.skip = 0
        #: Whether iterators yield batches.
        self.open = True

    def begin(self, key: tuple[int, ...], first: int, skip: int = 0) -> None:
        """Number the batches of the next iterators.

        Args:
            key (tuple[int, ...]): What the keys of all batches begin with.
            first (int): The number of the first batch that is given.
            skip (int): How many batches the next iterator passes over. Their samples
                are not read.
        """
        self.key, self.first, self.skip = key, first, skip

    def __iter__(self) -> Iterator[list[Any]]:
        # A generator: nothing happens before the first batch is wanted, for dataloaders
        # make two iterators and use the second.
        if not self.open:
            return
        first, skip, self.skip = self.first, self.skip, 0
        for number, batch in enumerate(itertools.islice(self.batches, skip, None), first):
            yield [(*self.key, number), *batch]

    def __len__(self) -> int:
        return len(self.batches)


def number_batches(loader: DataLoader[Any]) -> NumberedBatches:
    """Make a dataloader's batches depend on their numbers alone.

    Args:
        loader (DataLoader): Changed in place, before its first iterator. Its data set
            gets a method ``__getitems__``.

    Returns:
        NumberedBatches: Its batch sampler from now on.

    Raises:
        UserError: It makes no batches.
    """
    if loader.batch_sampler is None:
        raise UserError('train_dataloader.batch_size=None makes no batches; set a batch size.')
    if isinstance(loader.batch_sampler, NumberedBatches):
        return loader.batch_sampler
    data: Any = loader.dataset
    # Torch calls this once a batch.
    data.__getitems__ = functools.partial(_read_seeded, data, getattr(data, '__getitems__', None))
    numbered = NumberedBatches(loader.batch_sampler)
    # A dataloader forbids this assignment, for fear of a batch size that is not its
    # batch sampler's; the batches are the same.
    object.__setattr__(loader, 'batch_sampler', numbered)
    return numbered
