"""Intervals, paired tests and Holm's correction against scipy and definitions."""

import math

import numpy as np
import pytest
from scipy import stats

from lm4ve.runner.scored_data import SampleCounts
from lm4ve.study.statistics import (
    confidence_interval,
    holm,
    paired_tests,
    summarize,
)
from lm4ve.study.trainings.plot import failed_seeds

#: No sample is left out.
WHOLE = SampleCounts(20, 20)


def test_degenerate_pairs():
    assert paired_tests([1.0, 2.0], [1.0, 2.0]) == (1.0, 1.0)
    # A sample more with each seed says nothing of the spread.
    p_t, p_wilcoxon = paired_tests([1.0, 2.0, 3.0], [0.0, 1.0, 2.0])
    assert math.isnan(p_t) and p_wilcoxon == 0.25
    # Rounding is no difference: two are left.
    _, p_wilcoxon = paired_tests([0.1 + 0.2, 5.0, 6.0], [0.3, 4.0, 5.0])
    assert p_wilcoxon == 0.5
    assert np.isnan(paired_tests([1.0], [2.0])).all()
    assert np.isnan(confidence_interval(np.array([1.0]))).all()


def test_equal_scores_have_an_interval_without_width():
    assert confidence_interval(np.full(3, 12.5)) == (12.5, 12.5)


def test_equal_differences_of_rounded_shares_are_ties():
    counts = np.random.default_rng(0).integers(440, 452, (9, 2, 8))
    for a, b in counts:
        of_shares = paired_tests(np.float32(a / 5), np.float32(b / 5))
        assert of_shares == pytest.approx(paired_tests(a, b), rel=1e-3)


def test_holm_by_hand():
    expected = pytest.approx([0.03, math.nan, 0.06, 0.06], nan_ok=True)
    assert holm([0.01, math.nan, 0.04, 0.03]) == expected


def test_summaries_pair_by_seed_and_leave_the_reference_untested():
    rng = np.random.default_rng(3)
    base = {seed: float(rng.normal()) for seed in range(5)}
    other = {}
    for seed in (4, 3, 1, 9):
        other[seed] = base.get(seed, 0) + float(rng.normal(1))
    scores = {'a': base, 'b': other, 'c': {0: 1.0}, 'd': {}}
    counts = {name: dict.fromkeys(own, WHOLE) for name, own in scores.items()}
    reference, first, second = summarize(scores, 'a', counts)
    assert reference.mean == pytest.approx(np.mean(list(base.values())))
    assert math.isnan(reference.p_t)
    assert math.isnan(reference.holm_t)
    difference = np.array([other[seed] - base[seed] for seed in (1, 3, 4)])
    assert first.count == 4
    assert first.difference == pytest.approx(difference.mean())
    test = stats.ttest_1samp(difference, 0)
    between = (first.difference_low, first.difference_high)
    assert between == pytest.approx(test.confidence_interval(0.95))
    assert first.p_t == pytest.approx(test.pvalue)
    assert first.p_wilcoxon == pytest.approx(stats.wilcoxon(difference).pvalue)
    # `c` has one pair only: no test, so that one comparison is all there is.
    assert first.holm_t == first.p_t
    assert first.holm_wilcoxon == first.p_wilcoxon
    assert math.isnan(second.holm_t)


def test_scores_over_other_numbers_of_samples_are_not_paired():
    scores = {'a': {0: 1.0, 1: 2.0, 2: 3.0}, 'b': {0: 2.0, 1: 2.5, 2: 9.0}}
    counts = {name: dict.fromkeys(own, WHOLE) for name, own in scores.items()}
    counts['b'][2] = SampleCounts(12, 20)
    _, second = summarize(scores, 'a', counts)
    assert second.count == 3
    assert second.difference == 0.75
    counts['b'] = dict.fromkeys(scores['b'], SampleCounts(12, 20))
    _, second = summarize(scores, 'a', counts)
    assert math.isnan(second.difference)


def test_failed_seeds_are_far_from_their_variant_not_from_others():
    values = np.array(
        [[1.0, 1.1, 0.9, 1.05], [9.0, 9.1, 0.0, 8.9], [5.0, 5.0, 5.0, 5.0]]
    )
    assert np.argwhere(failed_seeds(list(values))).tolist() == [[1, 2]]
    assert not np.any(failed_seeds([np.ones(3), np.ones(3)]))
