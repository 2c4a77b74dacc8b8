"""Measures how fast one core of this machine multiplies, moves and dispatches.

Everything is timed by the CPU time of the process, on one thread, so that other
processes disturb it little.
"""

import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch.nn import functional as F

#: Rounds of each measurement; their median counts.
ROUNDS = 5


@dataclass(frozen=True)
class CpuRates:
    """The speed of one core; see :class:`lm4ve.cost.devices.Device`."""

    macs: dict[torch.dtype, float]
    bandwidth: float
    call: float
    memory: int
    slower: dict[str, float]


def measure_cpu() -> CpuRates:
    """Measure one core of this machine, in about a second."""
    with one_thread(), torch.no_grad():
        return CpuRates(
            macs={
                dtype: _macs_of(dtype)
                for dtype in (torch.float32, torch.bfloat16, torch.float16)
            },
            bandwidth=_bandwidth(),
            call=_seconds_of_call(),
            memory=os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES'),
            slower=_slower_operators(),
        )


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread inside the context."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def cpu_seconds(function: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Return the median CPU seconds of a function over rounds, after one to warm up."""
    function()
    seconds = []
    for _ in range(rounds):
        start = time.process_time()
        function()
        seconds.append(time.process_time() - start)
    return statistics.median(seconds)


def _macs_of(dtype: torch.dtype) -> float:
    """Return the multiply-accumulates a second of a linear layer of a small transformer."""
    rows, width, inner = 512, 384, 768
    tokens = torch.randn(rows, width, dtype=dtype)
    weight = torch.randn(inner, width, dtype=dtype)
    return rows * width * inner / cpu_seconds(lambda: F.linear(tokens, weight))


def _bandwidth() -> float:
    """Return the bytes a second of an addition of two tensors that no cache holds."""
    one = torch.randn(4_000_000)
    two = torch.randn(4_000_000)
    out = torch.empty(4_000_000)
    return 3 * one.nbytes / cpu_seconds(lambda: torch.add(one, two, out=out))


def _seconds_of_call() -> float:
    """Return the seconds of an operator on a tensor of a few numbers."""
    tensor = torch.randn(8)
    calls = 500

    def run() -> None:
        for _ in range(calls):
            tensor.mul_(1.0)

    return cpu_seconds(run) / calls


def _slower_operators() -> dict[str, float]:
    """Return operator -> numbers a second, for those that compute more than they move."""
    count = 300_000
    tensor = torch.randn(count)
    functions: dict[str, Callable[[], object]] = {
        'gelu': lambda: F.gelu(tensor),
        'bernoulli_': lambda: torch.empty(count).bernoulli_(0.5),
        'sort': lambda: tensor.sort(),
    }
    return {name: count / cpu_seconds(run) for name, run in functions.items()}
