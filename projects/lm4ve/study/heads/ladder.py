"""Which values a head may have: learning rates, C or k."""

from collections.abc import Sequence

#: Learning rates: the largest of the one-cycle schedule.
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
#: Family -> what is tuned, where it is no learning rate.
WORDS = {'logreg': 'C', 'knn': 'k'}
#: Family -> the values to choose from, where they are no learning rates.
LADDERS: dict[str, Sequence[float]] = {
    'logreg': (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0),
    'knn': (20,),
}


def ladder_of(family: str, rates: Sequence[float]) -> Sequence[float]:
    """Return the values that a head may have, in the order of preference among equals.

    Args:
        family (str): The head's family.
        rates (Sequence[float]): The learning rates that the user gave; none: a ladder.
    """
    if family in LADDERS:
        return LADDERS[family]
    return rates if rates else RATES
