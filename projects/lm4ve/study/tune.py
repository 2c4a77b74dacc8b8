"""Interface only, for now: which learning rate (or C, or k) a seed takes.

1. All seeds share a first tuning: `next_values` says which values it tries, from the
   middle of the ladder on, until it returns nothing.
2. `within_noise` keeps the values that its val pictures cannot tell from the best.
3. Each seed draws its own fit and val pictures, trains the kept values on fit, and takes
   `value_of_seed`. A single kept value needs no such training.
"""

from collections.abc import Mapping, Sequence

import numpy as np


def next_values(ladder: Sequence[float], accuracies: Mapping[float, float]) -> list[float]:
    """Return the values to try next: the middle three, then the best one's neighbours."""
    raise NotImplementedError


def within_noise(
    ladder: Sequence[float],
    correct: Mapping[float, np.ndarray],
    groups: np.ndarray | None = None,
) -> list[float]:
    """Return the values that the shared tuning cannot tell from its best one.

    Args:
        ladder (Sequence[float]): In the order of preference among equals.
        correct (Mapping[float, np.ndarray]): Value -> bool ``[val pictures]``, the same
            pictures for all.
        groups (np.ndarray | None): The group of each val picture.
    """
    raise NotImplementedError


def value_of_seed(kept: Sequence[float], accuracies: Mapping[float, float]) -> float:
    """Return the kept value with the best accuracy on the seed's own val pictures."""
    raise NotImplementedError
