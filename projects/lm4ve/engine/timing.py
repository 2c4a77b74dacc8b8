"""The one way to measure how long something takes, on a CPU and on a GPU."""

import time
from typing import Any, Self

import torch


class Timer:
    """Measure the seconds that a ``with`` block takes.

    On CUDA, events on the device time the block, because its calls return before
    the work is done.

    Args:
        device (str | torch.device): Where the work is done.

    Attributes:
        seconds (float): The duration; it is there after the block.
    """

    def __init__(self, device: str | torch.device = 'cpu') -> None:
        self.seconds = 0.0
        self._on_cuda = torch.device(device).type == 'cuda'
        self._start: Any = None

    def __enter__(self) -> Self:
        self._start = self._now()
        return self

    def __exit__(self, *error: object) -> None:
        end = self._now()
        if self._on_cuda:
            torch.cuda.synchronize()
            self.seconds = self._start.elapsed_time(end) / 1e3
        else:
            self.seconds = end - self._start

    def _now(self) -> Any:
        if not self._on_cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event
