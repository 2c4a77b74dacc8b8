"""Whether one variant of a study is better than another: one interval, one verdict.

Three things vary and could make an empty difference look real: the seed of a training,
with the rate that its tuning took; the test pictures; and that pictures come in groups,
as several of one scene do. The interval counts all of them. It is the only one: it is
drawn, and the verdict is where it lies.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtri, stdtrit

ALPHA = 0.05
POWER = 0.8
#: From fewer groups no spread is estimated.
FEWEST_GROUPS = 8
#: Scores of seeds that differ by less than this part of the margin are equal.
_TIE = 1e-4
#: So many times as many seeds or pictures can be a plan; more are not asked for.
MOST_GROWTH = 10
#: What :func:`compare` does, in the words that a study writes before it trains.
RULE = f"""\
A variant is compared with another one on the same test pictures, seed by seed. The
difference is that of the mean accuracies: each picture counts once, also where groups
differ in size. Its interval has two parts, one by Student's t over seeds and one by
Student's t over groups of pictures; half its width is the root of the sum of their
squares (Howe, J. Am. Stat. Assoc. 1974; both parts have the noise of seed x picture, as
in min F': Clark, J. Verbal Learn. Verbal Behav. 1973). Neither standard error is below
what rounding leaves: to one picture over seeds, and of one picture that differs over
pictures.

All comparisons that were planned share one confidence, which is 95 % after Holm's
correction (Scand. J. Stat. 1979). The verdict is where the interval lies:

- no difference larger than the margin: within the margin;
- better, or worse: else, if it excludes zero;
- open: else. The number of seeds or pictures that is given would decide with a chance
  of {POWER:.0%}, if mean and spread are as observed. None is given where it is more than
  {MOST_GROWTH} times as many, where both variants are at chance level, nor where fewer than
  {FEWEST_GROUPS} groups cannot tell the spread; groups of different sizes count as fewer."""


@dataclass(frozen=True)
class Comparison:
    """A variant against another one, in points (per cent of the test pictures).

    Attributes:
        variant, against (str): Their names.
        difference (float): Mean score of the variant minus that of the other.
        low, high (float): The interval that is judged and drawn; NaN where something is
            too few to estimate it.
        confidence (float): Of the interval: 0.95, or more where several comparisons are
            planned; the same for all of a study.
        over_seeds, over_groups (float): Its two standard errors; the second is 0 for
            scores of whole trainings.
        p, corrected_p (float): Two-sided: the interval of confidence 1 - p ends at zero.
            The second by Holm for all planned ones.
        verdict (str): 'better', 'worse', 'equal' (no difference larger than the margin)
            or 'open'.
        reason (str): Why it is open: 'few seeds', 'few pictures', 'few seeds and
            pictures', 'few groups', 'small difference' (ten times as many of both would
            not decide), 'at chance level' or 'no scores'; else empty.
        needed_seeds, needed_pictures (int): Numbers that would decide with a chance of
            80 %; 0 for one that need not grow, or that nobody can tell.
        seeds, pictures, groups (int): What the interval counts. With one picture, the
            score of a whole training, it counts seeds alone.
        equal_groups (float): So many groups of one size would tell as much (Kish, Survey
            Sampling 1965).
    """

    variant: str
    against: str
    difference: float = math.nan
    low: float = math.nan
    high: float = math.nan
    confidence: float = math.nan
    over_seeds: float = math.nan
    over_groups: float = math.nan
    p: float = math.nan
    corrected_p: float = math.nan
    verdict: str = 'open'
    reason: str = ''
    needed_seeds: int = 0
    needed_pictures: int = 0
    seeds: int = 0
    pictures: int = 0
    groups: int = 0
    equal_groups: float = 0.0

    def interval(self, confidence: float) -> tuple[float, float]:
        """Return the interval of another confidence."""
        half = self.half_width(1 - confidence)
        return self.difference - half, self.difference + half

    def half_width(self, alpha: float) -> float:
        """Return half the width of the interval of confidence 1 - alpha."""
        return half_width(
            self.over_seeds, self.seeds, self.over_groups, self.equal_groups, alpha
        )


class Score(NamedTuple):
    """The score of a variant.

    Attributes:
        of_seeds (np.ndarray): That of each training, float64 ``[seeds]``.
        low, high (float): The 95 % interval of their mean over seeds and groups of
            pictures; NaN where something is too few to estimate it.
    """

    of_seeds: np.ndarray
    low: float
    high: float

    @property
    def mean(self) -> float:
        """The mean over seeds."""
        return float(self.of_seeds.mean())

    @property
    def half(self) -> float:
        """Half the width of the interval."""
        return (self.high - self.low) / 2


class _Pictures(NamedTuple):
    """The groups of the test pictures.

    Attributes:
        group_of_picture (np.ndarray): int ``[pictures]``.
        shares (np.ndarray): The part of the pictures in each group, ``[groups]``.
        step (float): The points of one picture, or of the smallest difference.
    """

    group_of_picture: np.ndarray
    shares: np.ndarray
    step: float

    @property
    def equal_groups(self) -> float:
        """So many groups of one size would tell as much (Kish, Survey Sampling 1965)."""
        return float(1 / (self.shares**2).sum())

    @property
    def shortage(self) -> str:
        """Says that pictures or groups are too few; else empty."""
        pictures = len(self.group_of_picture)
        if pictures == 1 or round(self.equal_groups) >= FEWEST_GROUPS:
            return ''
        return 'few pictures' if len(self.shares) == pictures else 'few groups'


def compare(
    scores: Mapping[str, np.ndarray],
    planned: Sequence[tuple[str, str]],
    margin: float,
    groups: np.ndarray | None = None,
    chance: float | None = None,
    step: float | None = None,
) -> list[Comparison]:
    """Compare variants in pairs.

    Args:
        scores (Mapping[str, np.ndarray]): Variant -> points ``[seeds, pictures]``: 100
            where a picture is right, else 0. Rows are the same seeds in all variants,
            columns the same pictures; a row of NaN is a seed without a result. A
            variant with a single row stands beside each seed of the other. Scores of
            whole trainings are ``[seeds, 1]``.
        planned (Sequence): Names of variant and other, of all pairs that were planned
            before the first score. A pair without scores counts for the correction.
        margin (float): The smallest difference that matters, in points.
        groups (np.ndarray | None): The group of each picture, ``[pictures]``; without,
            each picture is a group.
        chance (float | None): Points of guessing, as of the most frequent class.
        step (float | None): The smallest difference between two scores of one seed, in
            points; by default 100 / pictures. Scores ``[seeds, 1]`` need it where seeds
            may agree in each digit, as accuracies on few pictures do.

    Returns:
        list[Comparison]: One of each planned pair, in the same order.
    """
    width = max((np.shape(score)[1] for score in scores.values()), default=1)
    pictures = _group_pictures(width, groups, step)
    tie = _TIE * margin
    tested = []
    for variant, against in planned:
        comparison = Comparison(variant, against, reason='no scores')
        if variant in scores and against in scores:
            gain = np.subtract(scores[variant], scores[against], dtype=float)
            comparison = _test(comparison, gain, pictures, tie)
        tested.append(comparison)

    judged = []
    for comparison in _correct(tested):
        comparison = _judge(comparison, margin)
        if comparison.verdict == 'open' and not math.isnan(comparison.low):
            pair = (scores[comparison.variant], scores[comparison.against])
            if chance is not None and not _any_above(chance, pair, pictures, tie):
                comparison = replace(
                    comparison,
                    reason='at chance level',
                    needed_seeds=0,
                    needed_pictures=0,
                )
        judged.append(comparison)
    return judged


def estimate_score(
    points: np.ndarray,
    seeds: int,
    margin: float,
    groups: np.ndarray | None = None,
    step: float | None = None,
) -> Score:
    """Return a variant's score with its interval, which has the two parts of a comparison's.

    Args:
        points (np.ndarray): As in :func:`compare`, of one variant.
        seeds (int): How many seeds a single row stands for.
        margin, groups, step: As in :func:`compare`.
    """
    rows = np.asarray(points, float)
    if len(rows) == 1:
        rows = np.repeat(rows, seeds, axis=0)
    pictures = _group_pictures(rows.shape[1], groups, step)
    tested = _test(Comparison('', ''), rows, pictures, _TIE * margin)
    low, high = tested.interval(1 - ALPHA)
    return Score(np.mean(points, axis=1, dtype=float), low, high)


def _group_pictures(
    count: int, groups: np.ndarray | None, step: float | None
) -> _Pictures:
    """Return the groups of so many pictures; arguments as in :func:`compare`."""
    if groups is None:
        groups = np.arange(count)
    _, group_of_picture, sizes = np.unique(
        groups, return_inverse=True, return_counts=True
    )
    if step is None:
        step = 100 / count if count > 1 else 0.0
    return _Pictures(group_of_picture, sizes / count, step)


def _test(
    comparison: Comparison, gain: np.ndarray, pictures: _Pictures, tie: float
) -> Comparison:
    """Return a comparison with difference, errors and p, or with what is too few for them.

    Args:
        comparison (Comparison): The names.
        gain (np.ndarray): Points ``[seeds, pictures]``.
        pictures (_Pictures): Their groups.
        tie (float): Seeds that differ by less are equal.
    """
    gain = gain[~np.isnan(gain).any(1)]
    seeds, count = gain.shape
    if not seeds:
        return comparison
    comparison = replace(
        comparison,
        difference=float(gain.mean()),
        seeds=seeds,
        pictures=count,
        groups=len(pictures.shares),
        equal_groups=pictures.equal_groups,
        reason=pictures.shortage,
    )
    if comparison.reason:
        return comparison

    comparison = replace(
        comparison,
        over_seeds=_error_over_seeds(gain, pictures.step, tie),
        over_groups=_error_over_groups(gain, pictures),
    )
    if math.isnan(comparison.over_seeds):
        return replace(comparison, reason='few seeds')
    return replace(comparison, p=_p_of_zero(comparison))


def _p_of_zero(comparison: Comparison) -> float:
    """Return the p with which the interval of confidence 1 - p ends at zero.

    A p below 1e-12 is given as that.
    """
    effect = abs(comparison.difference)

    def beyond(log_p: float) -> float:
        """Return by how much the interval ends beyond zero."""
        return comparison.half_width(math.exp(log_p)) - effect

    smallest = math.log(1e-12)
    if beyond(smallest) <= 0:
        return 1e-12
    return math.exp(brentq(beyond, smallest, 0.0, xtol=1e-6))


def _error_over_seeds(gain: np.ndarray, step: float, tie: float) -> float:
    """Return the standard error of the mean over seeds; NaN if they have no spread.

    A seed's score is rounded to whole pictures. Few seeds that agree do not show that
    nothing varies, so that their variance is at least that of the rounding: of a uniform
    distribution as wide as a step.
    """
    seeds = len(gain)
    if seeds == 1:
        return math.nan
    variance = snap_ties(gain.mean(1), tie).var(ddof=1)
    error = math.sqrt(max(variance, step**2 / 12) / seeds)
    return error if error > 0 else math.nan


def _error_over_groups(gain: np.ndarray, pictures: _Pictures) -> float:
    """Return the standard error of the mean over groups; 0 for scores of whole trainings.

    A group counts by its share of the pictures. Where no picture differs, others may: the
    error is at least that of one picture that does.
    """
    count = gain.shape[1]
    if count == 1:
        return 0.0
    deviation = gain.mean(0) - gain.mean()
    # By how much each group moves the mean.
    of_group = np.bincount(pictures.group_of_picture, deviation) / count
    few = pictures.equal_groups / (pictures.equal_groups - 1)
    return math.sqrt(max((of_group**2).sum() * few, pictures.step**2))


def snap_ties(values: np.ndarray, tie: float) -> np.ndarray:
    """Return values of which those that differ by rounding are equal.

    Sorted values with no gap as large as `tie` between them get the smallest one's value.

    Args:
        values (np.ndarray): ``[n]``.
        tie (float): Smaller differences are rounding.
    """
    order = np.argsort(values)
    ascending = values[order]
    is_first = np.diff(ascending, prepend=-np.inf) > tie
    snapped = np.empty_like(values)
    snapped[order] = ascending[is_first][np.cumsum(is_first) - 1]
    return snapped


def _correct(tested: Sequence[Comparison]) -> list[Comparison]:
    """Return comparisons with corrected p and intervals, by Holm for all that were planned.

    Holm tests each of the comparisons that he does not reject at alpha, divided by their
    number. An interval of that confidence excludes zero in exactly those that he rejects.
    """
    from statsmodels.stats.multitest import multipletests  # it takes seconds to import

    if not tested:
        return []
    # What has no p could have any.
    p = [1.0 if math.isnan(one.p) else one.p for one in tested]
    rejected, corrected, _, _ = multipletests(p, ALPHA, method='holm')
    confidence = 1 - ALPHA / max(len(p) - rejected.sum(), 1)
    comparisons = []
    for comparison, corrected_p in zip(tested, corrected, strict=True):
        low, high = comparison.interval(confidence)
        comparisons.append(
            replace(
                comparison,
                low=low,
                high=high,
                confidence=float(confidence),
                corrected_p=float(corrected_p),
            )
        )
    return comparisons


def _any_above(
    chance: float, scores: Sequence[np.ndarray], pictures: _Pictures, tie: float
) -> bool:
    """Return whether any variant's mean score is above chance, by one-sided t-tests."""
    for score in scores:
        rows = np.asarray(score, float) - chance
        if len(rows) == 1:  # a variant without seeds
            rows = np.repeat(rows, 2, axis=0)
        test = _test(Comparison('', ''), rows, pictures, tie)
        if test.interval(1 - 2 * ALPHA)[0] > 0:
            return True
    return False


def _judge(comparison: Comparison, margin: float) -> Comparison:
    """Return a comparison with the verdict: where its interval lies.

    Args:
        comparison (Comparison): With its interval, or the reason why it has none.
        margin (float): In points.
    """
    if comparison.reason:
        return comparison
    if -margin < comparison.low and comparison.high < margin:
        return replace(comparison, verdict='equal')
    if comparison.low > 0:
        return replace(comparison, verdict='better')
    if comparison.high < 0:
        return replace(comparison, verdict='worse')
    return _say_needed(comparison, margin)


def _say_needed(comparison: Comparison, margin: float) -> Comparison:
    """Return an open comparison with what is too few, and how many would do.

    Mean and spread are assumed to be as observed, and groups to grow in number, not in
    size. What has to grow by the smaller factor is named; where neither is a plan, both.

    Args:
        comparison (Comparison): One whose interval decides nothing.
        margin (float): In points.
    """
    of_seeds = _growth(comparison, margin, seeds=True, pictures=False)
    growth = {'seeds': of_seeds}
    if comparison.pictures > 1:  # else scores of whole trainings
        of_pictures = _growth(comparison, margin, seeds=False, pictures=True)
        if of_pictures < of_seeds:
            growth = {'pictures': of_pictures}
        if min(of_seeds, of_pictures) == math.inf:
            of_both = _growth(comparison, margin, seeds=True, pictures=True)
            growth = {'seeds': of_both, 'pictures': of_both}
    if math.inf in growth.values():
        return replace(comparison, reason='small difference')

    present = {'seeds': comparison.seeds, 'pictures': comparison.pictures}
    needed = {}
    for name, factor in growth.items():
        needed[name] = math.ceil(max(present[name] * factor, present[name] + 1))
    return replace(
        comparison,
        reason=f'few {" and ".join(needed)}',
        needed_seeds=needed.get('seeds', 0),
        needed_pictures=needed.get('pictures', 0),
    )


def _growth(
    comparison: Comparison, margin: float, seeds: bool, pictures: bool
) -> float:
    """Return the factor by which seeds, pictures or both have to grow to decide.

    It is infinite where :data:`MOST_GROWTH` times as many would not.

    Args:
        comparison (Comparison): With the observed difference and errors.
        margin (float): In points.
        seeds, pictures (bool): What grows.
    """
    alpha = 1 - comparison.confidence
    effect = abs(comparison.difference)

    def room(log_factor: float) -> float:
        """Return how much nearer to zero, or to the margin, the interval may end."""
        factor = math.exp(log_factor)
        seed_factor = factor if seeds else 1.0
        group_factor = factor if pictures else 1.0
        over_seeds = comparison.over_seeds / math.sqrt(seed_factor)
        over_groups = comparison.over_groups / math.sqrt(group_factor)
        half = half_width(
            over_seeds,
            comparison.seeds * seed_factor,
            over_groups,
            comparison.equal_groups * group_factor,
            alpha,
        )
        error = math.hypot(over_seeds, over_groups)
        above_zero = effect - half - ndtri(POWER) * error
        # Both ends have to lie within the margin.
        within = margin - effect - half - ndtri((1 + POWER) / 2) * error
        return float(max(above_zero, within))

    largest = math.log(MOST_GROWTH)
    if room(0.0) >= 0:
        return 1.0
    if room(largest) <= 0:
        return math.inf
    return math.exp(brentq(room, 0.0, largest, xtol=1e-3))


def half_width(
    over_seeds: float, seeds: float, over_groups: float, groups: float, alpha: float
) -> float:
    """Return half the width of an interval that misses the truth with chance alpha.

    It has two parts, each by Student's t; they are independent, so that their squares
    add (Howe, J. Am. Stat. Assoc. 1974). One t with Satterthwaite's degrees of freedom is
    too narrow with three seeds: if they agree by chance, it takes those of the pictures.

    Args:
        over_seeds, over_groups (float): The standard errors of the two parts.
        seeds, groups (float): So many each is estimated from. One group, a whole
            training, has no error.
        alpha (float): From 0 to 1.
    """
    t_of_seeds = stdtrit(seeds - 1, 1 - alpha / 2)
    t_of_groups = stdtrit(max(groups - 1, 1.0), 1 - alpha / 2)
    return math.hypot(over_seeds * t_of_seeds, over_groups * t_of_groups)
