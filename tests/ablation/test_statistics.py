"""Intervals, paired tests and Holm's correction against scipy and definitions."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from lm4ve.ablation import holm, interval, paired_tests, summarize


def test_interval_is_scipys():
    values = np.random.default_rng(0).normal(3, 2, 9)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert interval(values) == pytest.approx(expected)


def test_interval_of_two_values_by_hand():
    # The quantile .975 of t with one degree of freedom is 12.7062.
    assert interval([1.0, 3.0]) == pytest.approx((2 - 12.7062, 2 + 12.7062), abs=1e-4)
    assert np.isnan(interval([1.0])).all()


def test_paired_tests_are_scipys():
    rng = np.random.default_rng(1)
    a, b = rng.normal(0, 1, 8), rng.normal(0.5, 1, 8)
    p_t, p_w = paired_tests(a, b)
    assert p_t == pytest.approx(stats.ttest_rel(a, b).pvalue)
    assert p_w == pytest.approx(stats.wilcoxon(a, b).pvalue)


def test_degenerate_pairs():
    assert paired_tests([1.0, 2.0], [1.0, 2.0]) == (1.0, 1.0)
    assert paired_tests([1.0, 2.0, 3.0], [0.0, 1.0, 2.0])[0] == 0.0
    assert np.isnan(paired_tests([1.0], [2.0])).all()


def by_closed_testing(p: list) -> list:
    """Holm by its definition: a hypothesis falls if every set with it falls."""
    everyone = range(len(p))
    sets = [s for n in range(1, len(p) + 1) for s in itertools.combinations(everyone, n)]
    return [max(min(1.0, len(s) * min(p[i] for i in s)) for s in sets if k in s) for k in everyone]


def test_holm_is_the_closed_test_of_bonferroni():
    rng = np.random.default_rng(2)
    for count in (1, 2, 3, 5, 6):
        p = (rng.random(count) ** 3).tolist()
        assert holm(p) == pytest.approx(by_closed_testing(p))
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.02, 0.02]) == pytest.approx([0.04, 0.04])


def test_summaries_pair_by_seed_and_leave_the_reference_untested():
    rng = np.random.default_rng(3)
    base = {s: float(rng.normal()) for s in range(5)}
    other = {s: base.get(s, 0) + float(rng.normal(1)) for s in (4, 3, 1, 9)}
    ref, first, second = summarize(dict(a=base, b=other, c={0: 1.0}, d={}), 'a')
    assert ref.mean == pytest.approx(np.mean(list(base.values())))
    assert ref.std == pytest.approx(np.std(list(base.values()), ddof=1))
    assert ref.pairs == 0 and math.isnan(ref.p_t) and math.isnan(ref.holm_t)
    common = (1, 3, 4)
    difference = np.array([other[s] - base[s] for s in common])
    assert (first.count, first.pairs) == (4, 3)
    assert first.difference == pytest.approx(difference.mean())
    assert (first.difference_low, first.difference_high) == pytest.approx(interval(difference))
    assert first.p_t == pytest.approx(stats.ttest_1samp(difference, 0).pvalue)
    # `c` has one pair only: no test, so that one comparison is all there is.
    assert first.holm_t == first.p_t and first.holm_wilcoxon == first.p_wilcoxon
    assert second.pairs == 1 and math.isnan(second.holm_t)


def test_holm_corrects_summaries_for_every_comparison():
    rng = np.random.default_rng(4)
    scores = {k: dict(enumerate(rng.normal(i / 2, 1, 6).tolist())) for i, k in enumerate('abcd')}
    found = summarize(scores, 'a')
    assert [s.holm_t for s in found[1:]] == pytest.approx(holm([s.p_t for s in found[1:]]))
    assert any(s.holm_t > s.p_t for s in found[1:])
