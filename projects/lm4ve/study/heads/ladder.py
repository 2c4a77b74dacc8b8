"""Which values of a head are tried on val: its learning rate, C or k.

Tuning begins with the middle three of a ladder and goes on where the best one is at the
end of what was tried, with one seed. The two best are trained with a second seed, and
the better mean wins.
"""

from collections.abc import Mapping, Sequence

import numpy as np

#: Learning rates: the largest of the one-cycle schedule.
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
#: Family -> what is tuned, where it is no learning rate.
WORDS = {'logreg': 'C', 'knn': 'k'}
#: Family -> the values to choose from, where they are no learning rates.
LADDERS: dict[str, Sequence[float]] = {
    'logreg': (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0),
    'knn': (20,),
}
#: Seeds of tuning: of all values, and of the best; those of the comparison count from 0.
TUNING_SEEDS = (1000, 1001)
#: How many values are trained with the second seed.
FINALISTS = 2


def ladder_of(family: str, rates: Sequence[float]) -> Sequence[float]:
    """Return the values that a head may have, in the order of preference among equals.

    Args:
        family (str): The head's family.
        rates (Sequence[float]): The learning rates that the user gave; none: a ladder.
    """
    if family in LADDERS:
        return LADDERS[family]
    return rates if rates else RATES


def untried_values(
    family: str, rates: Sequence[float], accuracies: Mapping[float, float]
) -> list[float]:
    """Return the values that a head should be trained with next.

    Learning rates that the user gave are tried at once. Else these are the best value so
    far and its neighbours on the ladder, at first those around its middle.

    Args:
        family, rates: See :func:`ladder_of`.
        accuracies (Mapping[float, float]): Value -> accuracy, of those tried.
    """
    ladder = ladder_of(family, rates)
    has_own_ladder = family in LADDERS
    if rates and not has_own_ladder:
        wanted = ladder
    else:
        center = len(ladder) // 2
        if accuracies:
            center = ladder.index(best_of(accuracies, ladder))
        first = max(center - 1, 0)
        wanted = ladder[first : center + 2]
    return [value for value in wanted if value not in accuracies]


def best_of(accuracies: Mapping[float, float], ladder: Sequence[float]) -> float:
    """Return the value with the best accuracy; the first on the ladder among equals."""
    tried = [value for value in ladder if value in accuracies]
    return max(tried, key=accuracies.__getitem__)


def finalists(
    accuracies: Mapping[float, float], ladder: Sequence[float]
) -> list[float]:
    """Return the two best values of those tried, or the only one.

    Args:
        accuracies (Mapping[float, float]): Value -> accuracy with the first seed.
        ladder (Sequence[float]): See :func:`ladder_of`.
    """
    tried = [value for value in ladder if value in accuracies]
    order = np.argsort([-accuracies[value] for value in tried], kind='stable')
    return [tried[place] for place in order[:FINALISTS]]
