"""The rule that turns trainings into one sentence; it is written before the first training.

Two things vary: the seed of a training, and which pictures happen to be the test. A
gain counts only if it stands out from both at once: of two tests, one for each, the
larger p is below 0.05 in up to 11 % of studies without a difference. That a difference
was not found is not a result; that it is smaller than a margin is one (equivalence by
two one-sided tests: Schuirmann, J. Pharmacokinet. Biopharm. 1987).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy import stats

from lm4ve.study.statistics import holm

ALPHA = 0.05
POWER = 0.8
#: Of seeds or test pictures alone no more than so many times as many are asked for, if
#: fewer of both would do.
_MOST_GROWTH = 10
#: What :func:`decide` does, in the words that a study writes before it trains.
RULE = """\
The verdict on a frozen block and another variant, whose seeds are paired:

- no difference larger than the margin, on these test pictures: the 90 % interval
  over seeds, each of them rounded to whole pictures, lies within the margin, so
  that two one-sided t-tests reject that it is larger;
- better, or worse: else, if p < 0.05, where p is the larger one of a paired t-test
  over seeds and of min F' over seeds and test pictures (Clark, J. Verbal Learn.
  Verbal Behav. 1973), both two-sided, corrected by Holm for all comparisons;
- too few seeds, or test pictures, to tell: else. The number that is given is enough
  with a chance of 80 % for one of the two above, if mean and spread are as
  observed.

Of several linear probes the one that is best on val is compared."""


@dataclass(frozen=True)
class Comparison:
    """A frozen block against another variant, in points (per cent of the test pictures).

    Attributes:
        block, against (str): Variants' names.
        difference (float): Mean accuracy of the block minus that of the other.
        interval_over_seeds (tuple[float, float]): Its 95 % interval over seeds, on these
            test pictures.
        interval_over_both (tuple[float, float]): Over seeds and test pictures, and not
            within the one before.
        p, corrected_p (float): The larger p of these two, two-sided; the second by
            Holm's correction.
        verdict (str): 'better', 'worse', 'equal', 'few seeds', 'few test pictures' or
            'few seeds and test pictures'.
        words (str): The same for tables, with the margin or the number that is needed.
        seeds_needed, pictures_needed (int): The numbers that would decide; 0 for one
            that need not grow, or where there is a verdict already.
    """

    block: str
    against: str
    difference: float
    interval_over_seeds: tuple[float, float]
    interval_over_both: tuple[float, float]
    p: float
    corrected_p: float = math.nan
    verdict: str = ''
    words: str = ''
    seeds_needed: int = 0
    pictures_needed: int = 0


def points(value: float) -> str:
    """Return a number of points as text with at most one decimal: '1 point', '2.5 points'."""
    return _with_noun(f'{value:.1f}'.removesuffix('.0'))


def points_of_margin(margin: float) -> str:
    """Return a margin as text with all its digits: a rounded one was not tested."""
    return _with_noun(f'{margin:.10g}')


def _with_noun(number: str) -> str:
    """Return a number of points with its noun."""
    return '1 point' if number == '1' else f'{number} points'


def compare(
    correct: Mapping[str, np.ndarray],
    pairs: Sequence[tuple[str, str]],
    margin: float,
) -> list[Comparison]:
    """Compare frozen blocks with other variants.

    Args:
        correct (Mapping[str, np.ndarray]): Variant -> bool ``[seeds, test pictures]``,
            which pictures were right; the same pictures in the same order.
        pairs (Sequence): The names of a block and of another variant each.
        margin (float): In points.

    Returns:
        list[Comparison]: One of each pair; Holm's correction is for all of them.
    """
    comparisons = []
    gains = []
    for block, other in pairs:
        gain = gain_of(correct[block], correct[other])
        gains.append(gain)
        comparisons.append(_test_difference(block, other, gain))
    corrected = holm([comparison.p for comparison in comparisons])
    decided = []
    for comparison, gain, p in zip(comparisons, gains, corrected, strict=True):
        comparison = replace(comparison, corrected_p=p)
        decided.append(decide(comparison, gain, margin, len(comparisons)))
    return decided


def gain_of(block: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the points that a block gains with each seed and picture: 100, 0 or -100.

    Seeds are paired. A variant without seeds has one row, which stands beside each of
    the block's. Of other numbers of seeds the first ones count, which both have.

    Args:
        block, other (np.ndarray): Bool ``[seeds, test pictures]``.

    Returns:
        np.ndarray: float64 ``[seeds, test pictures]``.
    """
    if len(other) == 1:
        other = np.broadcast_to(other, block.shape)
    seeds = min(len(block), len(other))
    return 100.0 * (block[:seeds].astype(float) - other[:seeds].astype(float))


def _test_difference(block: str, against: str, gain: np.ndarray) -> Comparison:
    """Compare a block with another head: difference, intervals and p, but no verdict.

    Args:
        block, against (str): The names of the two heads.
        gain (np.ndarray): The block's points minus the other's, float64 ``[seeds, test
            pictures]``.
    """
    errors = _squared_errors(gain)
    by_seeds = _test_mean(gain, errors[:1])
    by_both = _test_mean(gain, errors)
    low = min(by_seeds.low, by_both.low)
    high = max(by_seeds.high, by_both.high)
    return Comparison(
        block=block,
        against=against,
        difference=float(gain.mean()),
        interval_over_seeds=(by_seeds.low, by_seeds.high),
        interval_over_both=(low, high),
        p=max(by_seeds.p, by_both.p),
    )


def decide(
    comparison: Comparison, gain: np.ndarray, margin: float, comparisons: int
) -> Comparison:
    """Return a comparison with its verdict, by :data:`RULE`.

    Args:
        comparison (Comparison): Difference, intervals and p values.
        gain (np.ndarray): Points, float64 ``[seeds, test pictures]``.
        margin (float): In points.
        comparisons (int): How many Holm's correction is for.
    """
    critical_t = stats.t.ppf(1 - ALPHA, len(gain) - 1)
    half_width = math.sqrt(_rounded_error(gain)) * critical_t
    if abs(comparison.difference) + half_width < margin:
        words = f'no difference larger than {points_of_margin(margin)}'
        return replace(comparison, verdict='equal', words=words)
    if comparison.corrected_p < ALPHA:
        verdict = 'better' if comparison.difference > 0 else 'worse'
        return replace(comparison, verdict=verdict, words=verdict)
    needed = _numbers_needed(gain, ALPHA / comparisons, margin)
    verdict = f'few {" and ".join(needed)}'
    numbers = ' and '.join(f'{number:,}' for number in needed.values())
    words = f'too {verdict} to tell: {numbers} needed'
    return replace(
        comparison,
        verdict=verdict,
        words=words,
        seeds_needed=needed.get('seeds', 0),
        pictures_needed=needed.get('test pictures', 0),
    )


class _Test(NamedTuple):
    """A mean's 95 % interval, and the two-sided p of its difference from zero."""

    low: float
    high: float
    p: float


def _squared_errors(gain: np.ndarray) -> np.ndarray:
    """Return the two squared standard errors of a mean: over seeds, over test pictures.

    Args:
        gain (np.ndarray): Points, float64 ``[seeds, test pictures]``.

    Returns:
        np.ndarray: float64 ``[2]``.
    """
    mean_of_seed = gain.mean(1)
    mean_of_picture = gain.mean(0)
    return np.array(
        [
            mean_of_seed.var(ddof=1) / len(mean_of_seed),
            mean_of_picture.var(ddof=1) / len(mean_of_picture),
        ]
    )


def _rounded_error(gain: np.ndarray) -> float:
    """Return the squared standard error over seeds, plus that of rounding to whole pictures.

    The accuracy of a seed is a multiple of one picture's points. Without this term, equal
    accuracies of few seeds would have no error at all.

    Args:
        gain (np.ndarray): Points, float64 ``[seeds, test pictures]``.
    """
    seeds, pictures = gain.shape
    over_seeds, _ = _squared_errors(gain)
    # The variance of a uniform distribution as wide as one picture, over the seeds.
    rounding = (100 / pictures) ** 2 / 12 / seeds
    return float(over_seeds + rounding)


def _test_mean(gain: np.ndarray, errors: np.ndarray) -> _Test:
    """Test whether a mean is zero by Student's t, with Satterthwaite's degrees of freedom.

    Args:
        gain (np.ndarray): Points, float64 ``[seeds, test pictures]``.
        errors (np.ndarray): Squared standard errors that count: ``[1]`` over seeds, or
            ``[2]`` over seeds and over test pictures.
    """
    mean = float(gain.mean())
    if not errors.any():  # Student's t is infinite, or nothing differs
        return _Test(mean, mean, p=1.0 if mean == 0 else 0.0)
    counts = np.array(gain.shape[: len(errors)])
    freedom = errors.sum() ** 2 / (errors**2 / (counts - 1)).sum()
    t = stats.t(freedom, mean, math.sqrt(errors.sum()))
    low, high = t.interval(0.95)
    p = 2 * float(min(t.cdf(0), t.sf(0)))
    return _Test(float(low), float(high), p)


def _numbers_needed(gain: np.ndarray, alpha: float, margin: float) -> dict[str, int]:
    """Return how many seeds or test pictures would decide with a chance of 80 %.

    The true mean and the spread are assumed to be as observed. More seeds can show that
    the mean is not zero, or that it is within the margin; more pictures only the first.
    The one that has to grow by the smaller factor is returned; where that factor is large
    and less of both would do, both.

    Args:
        gain (np.ndarray): Points, ``[seeds, test pictures]``.
        alpha (float): The level of one comparison.
        margin (float): In points.

    Returns:
        dict[str, int]: 'seeds', 'test pictures' or both -> the number.
    """
    effect = abs(float(gain.mean()))
    over_seeds, over_pictures = _squared_errors(gain)
    # Quantiles of the normal distribution.
    significance, power, one_sided, two_sided_power = stats.norm.ppf(
        [1 - alpha / 2, POWER, 1 - ALPHA, (1 + POWER) / 2]
    )
    # The largest sum of the squared errors with which the mean differs from zero.
    largest_error = (effect / (significance + power)) ** 2
    # The error of what grows must fit beside that of what stays.
    of_seeds = _growth(over_seeds, largest_error - over_pictures)
    of_pictures = _growth(over_pictures, largest_error - over_seeds)
    of_both = _growth(over_seeds + over_pictures, largest_error)
    if margin > effect:
        # Seeds may also show that the mean is within the margin: both one-sided tests
        # have to reject.
        error_within_margin = ((margin - effect) / (one_sided + two_sided_power)) ** 2
        within_margin = _growth(_rounded_error(gain), error_within_margin)
        of_seeds = min(of_seeds, within_margin)

    growth = {'seeds': of_seeds}
    if of_pictures < of_seeds:
        growth = {'test pictures': of_pictures}
    smallest = min(of_seeds, of_pictures)
    if smallest > _MOST_GROWTH and of_both < smallest:
        growth = {'seeds': of_both, 'test pictures': of_both}
    present = dict(zip(('seeds', 'test pictures'), gain.shape, strict=True))
    needed = {}
    for name, factor in growth.items():
        # With a term for Student's t (Guenther 1981).
        enough = math.ceil(present[name] * factor + significance**2 / 2)
        needed[name] = max(enough, present[name] + 1)
    return needed


def _growth(error: float, room: float) -> float:
    """Return the factor by which a number has to grow until its squared error fits.

    Args:
        error (float): The squared error, which falls as the number grows.
        room (float): What it may be; if nothing, no number is large enough.
    """
    if room <= 0:
        return math.inf
    return float(error / room)
