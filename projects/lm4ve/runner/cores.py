"""How many cores of a CPU a process may use, for the number of workers."""

import os


def count_cores() -> int:
    """Return how many cores this process may use; on macOS, how many there are."""
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
