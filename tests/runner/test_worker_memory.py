"""A worker of a data loader keeps the memory that it frees."""

import resource

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from lm4ve.runner.repeatable import number_batches

#: Below the size for which numpy asks for huge pages.
SIZE, COUNT, TIMES = 3 * 2**20, 5, 10


def allocate() -> None:
    [np.ones(SIZE, np.uint8) for _ in range(COUNT)]


class PageFaults(Dataset):
    """Each sample tells how many pages arrays took from the system, again and again."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, i: int) -> int:
        allocate()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(TIMES):
            allocate()
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def faults(numbered: bool) -> int:
    loader = DataLoader(PageFaults(), num_workers=1, multiprocessing_context='fork')
    if numbered:
        number_batches(loader).begin((0,), 0)
    return int(torch.cat(list(loader)).sum())


def test_arrays_of_a_worker_take_pages_that_it_has():
    pages = 2 * TIMES * COUNT * SIZE // resource.getpagesize()
    assert faults(numbered=True) < pages / 10
