"""Measures how long work takes on a machine that has nothing else to do.

Plans follow from what is measured. If they followed from the clock on the wall, a busy
machine would get a much shorter plan than a free one. The seconds that are counted here
leave out the waiting for a core, but not that others' use of caches and memory slows
the work itself. So they are close to those of a free machine, but not the same: a plan
that was measured on a busy one is not stored (:func:`lm4ve.probing.plan.is_busy`).
"""

import time

import torch

from lm4ve.runner.devices import find_device


class FreeClock:
    """Counts the seconds of work since it was made, as free cores would need.

    On a CPU they are the process's own seconds, of all its threads. With a GPU, which
    works beside the process, they are those of the wall.

    Args:
        cores (int): How many cores share the work.
    """

    def __init__(self, cores: int = 1) -> None:
        self.cores = cores
        self._has_gpu = find_device(None).type == 'cuda'
        self._start = self._now()
        self._start_on_wall = time.perf_counter()

    def seconds(self) -> float:
        """Return the seconds since the clock was made."""
        return (self._now() - self._start) / self._sharers()

    def waiting(self) -> float:
        """Return the seconds on the wall for each second of work since the clock was made.

        More than one means that the process waited, as it does for cores that others
        use.
        """
        on_wall = time.perf_counter() - self._start_on_wall
        return on_wall / max(self.seconds(), 1e-9)

    def _sharers(self) -> int:
        """Return by how many the measured seconds are shared."""
        return 1 if self._has_gpu else self.cores

    def _now(self) -> float:
        """Return the time from which seconds are counted."""
        if self._has_gpu:
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()
