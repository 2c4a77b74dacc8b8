"""Means, intervals and paired tests over seeds.

The same seed gives every variant the same order of the data and, where layers are
the same, much of the same initialisation; variants are therefore compared seed by
seed. Student's t supposes differences that are about normal; Wilcoxon's signed rank
test, beside it, supposes symmetry only, and with few seeds can say little (its p is
never below 2 / 2^n).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Summary:
    """Scores of a variant, and how they compare with the reference's.

    Attributes:
        variant (str): Its name.
        count (int): Seeds with a result.
        mean, std (float): Over them; the standard deviation with n - 1.
        low, high (float): 95 % interval of the mean; NaN with one seed.
        pairs (int): Seeds that both the variant and the reference have.
        difference (float): Mean of (variant - reference) over the pairs.
        difference_low, difference_high (float): Its 95 % interval.
        p_t, p_wilcoxon (float): Two-sided p values; NaN: no test.
        holm_t, holm_wilcoxon (float): The same, corrected for the number of
            comparisons.
    """

    variant: str
    count: int
    mean: float
    std: float
    low: float
    high: float
    pairs: int = 0
    difference: float = math.nan
    difference_low: float = math.nan
    difference_high: float = math.nan
    p_t: float = math.nan
    p_wilcoxon: float = math.nan
    holm_t: float = math.nan
    holm_wilcoxon: float = math.nan


def interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the mean by Student's t; NaN for fewer than two values."""
    values = np.asarray(values, float)
    if len(values) < 2:
        return math.nan, math.nan
    half = stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * (
        values.std(ddof=1) / math.sqrt(len(values))
    )
    return float(values.mean() - half), float(values.mean() + half)


def paired_tests(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """Two-sided p values of the paired t-test and of Wilcoxon's signed rank test.

    Args:
        a, b (Sequence[float]): Of the same seeds, in the same order.

    Returns:
        tuple[float, float]: NaN for fewer than two pairs. Where all differences
        are zero there is nothing to see, and both are 1.
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    if len(a) < 2:
        return math.nan, math.nan
    difference = a - b
    if not difference.any():
        return 1.0, 1.0
    # A constant difference has no spread: t is infinite, and p is 0.
    with np.errstate(divide='ignore'):
        p_t = 0.0 if np.ptp(difference) == 0 else float(stats.ttest_rel(a, b).pvalue)
    return p_t, float(stats.wilcoxon(difference).pvalue)


def holm(p: Sequence[float]) -> list[float]:
    """Correct p values for their number (Holm, Scand. J. Statist. 1979).

    Args:
        p (Sequence[float]): NaN is no test, and stays NaN.

    Returns:
        list[float]: In the same order; below a level exactly where the step-down
        procedure rejects at that level.
    """
    p = np.asarray(p, float)
    out = np.full(len(p), math.nan)
    tested = np.flatnonzero(~np.isnan(p))
    ordered = tested[np.argsort(p[tested], kind='stable')]
    steps = p[ordered] * np.arange(len(ordered), 0, -1)
    out[ordered] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return out.tolist()


def summarize(scores: dict[str, dict[int, float]], reference: str) -> list[Summary]:
    """Summarize variants.

    Args:
        scores (dict[str, dict[int, float]]): Variant -> seed -> score.
        reference (str): The variant that the others are compared with.

    Returns:
        list[Summary]: In the order of ``scores``, without variants that have no
        score.
    """
    base = scores.get(reference, {})
    found = []
    for name, by_seed in scores.items():
        if not by_seed:
            continue
        values = np.array(list(by_seed.values()))
        found.append(
            dict(
                variant=name,
                count=len(values),
                mean=float(values.mean()),
                std=float(values.std(ddof=1)) if len(values) > 1 else math.nan,
                **dict(zip(('low', 'high'), interval(values), strict=True)),
                **(_compare(by_seed, base) if name != reference else {}),
            )
        )
    for kind in ('t', 'wilcoxon'):
        corrected = holm([f.get(f'p_{kind}', math.nan) for f in found])
        for f, value in zip(found, corrected, strict=True):
            f[f'holm_{kind}'] = value
    return [Summary(**f) for f in found]


def _compare(scores: dict[int, float], base: dict[int, float]) -> dict[str, float]:
    seeds = [s for s in scores if s in base]
    if not seeds:
        return {}
    a, b = ([d[s] for s in seeds] for d in (scores, base))
    low, high = interval(np.subtract(a, b))
    p_t, p_wilcoxon = paired_tests(a, b)
    return dict(
        pairs=len(seeds),
        difference=float(np.mean(np.subtract(a, b))),
        difference_low=low,
        difference_high=high,
        p_t=p_t,
        p_wilcoxon=p_wilcoxon,
    )


def median_of(values: Sequence[float | None]) -> float:
    """Median of what is there; NaN of nothing."""
    there = [v for v in values if v is not None]
    return float(np.median(there)) if there else math.nan
