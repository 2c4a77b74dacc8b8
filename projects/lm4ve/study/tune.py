"""Which value of its ladder (learning rate, C or k) each seed of a variant takes.

A value that is chosen once for all seeds brings its luck into each of them, where no
interval over seeds can see it. So a choice is made with every seed:

1. One shared tuning tries values on its val pictures, as :func:`next_values` says, from
   the middle of the ladder until the best one is inside of what was tried.
2. :func:`within_noise` keeps the values that these pictures cannot tell from the best.
3. Each seed draws fit and val pictures of its own, trains the kept values on fit, and
   takes :func:`value_of_seed`. A single kept value needs no such training.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

T = TypeVar('T')
#: The seed of the tuning that all seeds share; those of the comparison count from 0.
TUNING_SEED = 1000
#: So many standard errors behind the best value a value is still within the noise.
#: With one, simulated studies without a difference decide in up to 60 %: what is dropped
#: by luck is dropped for all seeds (tools/dev/simulated_studies.py). So do those that
#: keep the best two or three alone (63 and 15 %; 6 % with all), or whose seeds try two or
#: three each (14 and 9 %).
NOISE = 2.0


def next_values(
    ladder: Sequence[float], accuracies: Mapping[float, float]
) -> list[float]:
    """Return the values to try next: the middle ones, then the best one's neighbours.

    Args:
        ladder (Sequence[float]): All values, in the order of preference among equals.
        accuracies (Mapping[float, float]): Value -> accuracy on val, of those tried.

    Returns:
        list[float]: None if the best value's neighbours were tried.
    """
    center = len(ladder) // 2
    if accuracies:
        tried = [value for value in ladder if value in accuracies]
        center = ladder.index(value_of_seed(tried, accuracies))
    wanted = ladder[max(center - 1, 0) : center + 2]
    return [value for value in wanted if value not in accuracies]


def within_noise(
    correct: Mapping[T, np.ndarray], groups: np.ndarray | None = None
) -> list[T]:
    """Return the values that the shared tuning cannot tell from its best one.

    Args:
        correct (Mapping): Value -> bool ``[val pictures]``, which
            were right; the same pictures for all.
        groups (np.ndarray | None): The group of each val picture; without, each is one.

    Returns:
        list: Those whose accuracy is at most :data:`NOISE` standard errors of the
        paired difference behind the best, in the same order.
    """
    accuracies = {value: right.mean() for value, right in correct.items()}
    best: np.ndarray = correct[value_of_seed(list(correct), accuracies)].astype(float)
    if groups is None:
        groups = np.arange(len(best))
    kept = []
    for value, right in correct.items():
        loss = best - right
        deviation = np.bincount(groups, loss - loss.mean())
        error = math.sqrt((deviation**2).sum()) / len(best)
        if loss.mean() <= NOISE * error:
            kept.append(value)
    return kept


def value_of_seed(kept: Sequence[T], accuracies: Mapping[T, float]) -> T:
    """Return the value with the best accuracy on val, the first one among equals.

    Args:
        kept (Sequence): Values to choose from.
        accuracies (Mapping): Value -> accuracy.
    """
    return max(kept, key=accuracies.__getitem__)
