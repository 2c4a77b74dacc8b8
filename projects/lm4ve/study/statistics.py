"""Means, intervals and paired tests over seeds.

The same seed gives every variant the same order of the data and, where layers are
the same, much of the same initialization; variants are therefore compared seed by
seed. Student's t supposes differences that are about normal. Wilcoxon's signed rank
test supposes symmetry only, and says little with few seeds (its p is never below
2 / 2^n).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from lm4ve.runner.scored_data import SampleCounts

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Summary:
    """Scores of a variant, and how they compare with the reference's.

    Attributes:
        variant (str): Its name.
        count (int): The number of seeds with a result.
        mean (float): The mean score over these seeds.
        low, high (float): The 95 % interval of the mean; NaN with one seed.
        difference (float): The mean of (variant - reference) over the seeds that both
            have, over as many samples; NaN for the reference, and without such seeds.
        difference_low, difference_high (float): The 95 % interval of the difference.
        p_t, p_wilcoxon (float): Two-sided p values; NaN if there is no test.
        holm_t, holm_wilcoxon (float): The p values, corrected for the number of
            comparisons.
    """

    variant: str
    count: int
    mean: float
    low: float
    high: float
    difference: float = math.nan
    difference_low: float = math.nan
    difference_high: float = math.nan
    p_t: float = math.nan
    p_wilcoxon: float = math.nan
    holm_t: float = math.nan
    holm_wilcoxon: float = math.nan


def confidence_interval(values: np.ndarray) -> tuple[float, float]:
    """Return the 95 % interval of the mean by Student's t.

    Args:
        values (np.ndarray): float64 ``[n]``.

    Returns:
        tuple[float, float]: NaN for fewer than two values; no width for equal values.
    """
    if len(values) < 2:
        return math.nan, math.nan
    mean = float(values.mean())
    error = stats.sem(values)
    if error == 0:
        return mean, mean
    low, high = stats.t.interval(CONFIDENCE, len(values) - 1, mean, error)
    return float(low), float(high)


def paired_tests(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """Return two-sided p values of the paired t-test and Wilcoxon's signed rank test.

    Args:
        a, b (Sequence[float]): Scores of the same seeds, in the same order.

    Returns:
        tuple[float, float]: NaN for fewer than two pairs. Where all differences are
        zero, both are 1. Where they are equal and not zero, the first is NaN: they have
        no spread to compare with, as those of few seeds on few samples often have.
    """
    if len(a) < 2:
        return math.nan, math.nan
    difference = np.asarray(a, float) - np.asarray(b, float)
    # Accuracies on few samples often differ by the same amount, or not at all. Such
    # differences must not seem to vary by their rounding.
    limit = 1e-6 * np.median(np.abs([a, b]))
    difference[np.abs(difference) <= limit] = 0.0
    if not difference.any():
        return 1.0, 1.0
    if np.ptp(difference) == 0:
        p_t = math.nan
    else:
        with np.errstate(divide='ignore'):
            p_t = float(stats.ttest_rel(a, b).pvalue)
    # Differences of nearly one size are ties, so each gets the size of the first.
    size = np.abs(difference)
    is_tie = np.isclose(size[:, None], size, rtol=0, atol=limit)
    size = size[is_tie.argmax(1)]
    p_wilcoxon = float(stats.wilcoxon(np.sign(difference) * size).pvalue)
    return p_t, p_wilcoxon


def holm(p: Sequence[float]) -> list[float]:
    """Correct p values for their number (Holm, Scand. J. Statist. 1979).

    Args:
        p (Sequence[float]): The p values; NaN stands for no test, and stays NaN.

    Returns:
        list[float]: In the same order; below a level exactly where the step-down
        procedure rejects at that level.
    """
    from statsmodels.stats.multitest import multipletests  # it takes seconds to import

    corrected = np.array(p, float)
    tested = ~np.isnan(corrected)
    corrected[tested] = multipletests(corrected[tested], method='holm')[1]
    return corrected.tolist()


def summarize(
    scores: dict[str, dict[int, float]],
    reference: str,
    counts: dict[str, dict[int, SampleCounts]],
) -> list[Summary]:
    """Summarize the scores of variants over seeds.

    Args:
        scores (dict[str, dict[int, float]]): Variant -> seed -> score.
        reference (str): The variant that the others are compared with.
        counts (dict): Variant -> seed -> the number of samples of a score. Scores over
            different numbers are not paired.

    Returns:
        list[Summary]: The summaries in the order of ``scores``, without variants
        that have no score.
    """
    summaries = []
    for name, by_seed in scores.items():
        if not by_seed:
            continue
        values = np.array(list(by_seed.values()), float)
        low, high = confidence_interval(values)
        summary = Summary(name, len(values), float(values.mean()), low, high)
        if name != reference:
            paired = paired_seeds(counts[name], counts.get(reference, {}))
            summary = _compare(summary, by_seed, scores.get(reference, {}), paired)
        summaries.append(summary)
    holm_t = holm([summary.p_t for summary in summaries])
    holm_wilcoxon = holm([summary.p_wilcoxon for summary in summaries])
    corrected = []
    for summary, p_t, p_wilcoxon in zip(summaries, holm_t, holm_wilcoxon, strict=True):
        corrected.append(replace(summary, holm_t=p_t, holm_wilcoxon=p_wilcoxon))
    return corrected


def paired_seeds(
    counts: dict[int, SampleCounts], reference: dict[int, SampleCounts]
) -> list[int]:
    """Return the seeds that a variant and the reference have, over as many samples.

    Args:
        counts (dict): Seed -> the number of samples of the variant's score.
        reference (dict): The same of the reference.
    """
    return [seed for seed in counts if counts[seed] == reference.get(seed)]


def _compare(
    summary: Summary,
    scores: dict[int, float],
    reference: dict[int, float],
    seeds: list[int],
) -> Summary:
    """Return a variant's summary with its difference from the reference, paired by seed.

    Without seeds the summary stays as it is.

    Args:
        summary (Summary): The summary of the variant.
        scores (dict[int, float]): Seed -> score of the variant.
        reference (dict[int, float]): Seed -> score of the reference.
        seeds (list[int]): Those whose scores are paired.
    """
    if not seeds:
        return summary
    own_scores = [scores[seed] for seed in seeds]
    reference_scores = [reference[seed] for seed in seeds]
    difference = np.subtract(own_scores, reference_scores)
    low, high = confidence_interval(difference)
    p_t, p_wilcoxon = paired_tests(own_scores, reference_scores)
    return replace(
        summary,
        difference=float(difference.mean()),
        difference_low=low,
        difference_high=high,
        p_t=p_t,
        p_wilcoxon=p_wilcoxon,
    )
