"""Measures how long work takes on a machine that has nothing else to do.

Plans follow from what is measured. If they followed from the clock on the wall, a busy
machine would get another plan than a free one, and a study that goes on there would
train everything again.
"""

import time

import torch

_HAS_GPU = torch.cuda.is_available()


class FreeClock:
    """Counts the seconds of work since it was made, as free cores would need.

    On a CPU they are the process's own seconds, of all its threads. With a GPU, which
    works beside the process, they are those of the wall.

    Args:
        cores (int): How many cores share the work.
    """

    def __init__(self, cores: int = 1) -> None:
        self.cores = cores
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
        return 1 if _HAS_GPU else self.cores

    def _now(self) -> float:
        """Return the time from which seconds are counted."""
        if _HAS_GPU:
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()
