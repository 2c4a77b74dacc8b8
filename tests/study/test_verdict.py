"""The rule, as a property over simulated trainings, and its words."""

import gc

import numpy as np
import pytest
from scipy import stats

from lm4ve.study.heads.verdict import compare, gain_of

CONTROLS = ('linear', 'random', 'mlp')


@pytest.fixture(autouse=True)
def quick_correction(monkeypatch):
    """statsmodels collects garbage in every correction, for a quarter of a second."""
    monkeypatch.setattr(gc, 'collect', lambda *args: 0)


def compare_all(correct, blocks, margin):
    """Compare each block with everything that is no block."""
    others = [name for name in correct if name not in blocks]
    pairs = [(block, other) for block in blocks for other in others]
    return compare(correct, pairs, margin)


def simulate(rng, gain: float):
    """Six trainings, right on 200 pictures with a probability that varies by all three.

    Over all pictures and seeds that there could be, its mean is 0.7 for 'frozen', and
    ``gain`` points less for controls; the test pictures are a draw of them.
    """
    ease = rng.uniform(-0.1, 0.1, 200)
    correct = {}
    for name in ('frozen', *CONTROLS):
        mean = 0.7 if name == 'frozen' else 0.7 - 0.01 * gain
        of_pictures = mean + ease + rng.uniform(-0.2, 0.2, 200)
        draws = rng.random((6, 200))
        correct[name] = draws < of_pictures + rng.normal(0, 0.03, (6, 1))
    return correct


def rate(verdicts, gain: float) -> float:
    """Share of 200 simulated studies with one of some verdicts among their comparisons."""
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        comparisons = compare_all(simulate(rng, gain), ['frozen'], 1.0)
        if any(comparison.verdict in verdicts for comparison in comparisons):
            hits += 1
    return hits / 200


def test_without_a_gain_few_studies_find_one():
    assert rate(('better', 'worse'), gain=0) <= 0.07


def test_a_large_gain_is_found():
    assert rate(('better',), gain=15) >= 0.95


def test_a_gain_of_the_margin_is_rarely_called_equal():
    """Over seeds: the pictures are all that there are."""
    rng = np.random.default_rng(0)
    equal = 0
    for _ in range(200):
        seeds = rng.normal(1.0, 0.5, 8).round(
            2
        )  # points, that 10,000 pictures can show
        base = np.arange(10_000) < 5_000
        frozen = np.stack([np.arange(10_000) < 5_000 + round(100 * s) for s in seeds])
        one = compare_all(
            {'frozen': frozen, 'linear': np.stack([base] * 8)}, ['frozen'], 1.0
        )
        equal += one[0].verdict == 'equal'
    assert equal / 200 <= 0.08


def test_numbers_are_scipys():
    correct = simulate(np.random.default_rng(1), 5)
    found = compare_all(correct, ['frozen'], 1.0)
    for one, name in zip(found, CONTROLS, strict=True):
        gain = 100.0 * correct['frozen'] - 100.0 * correct[name]
        over_seeds, over_pictures = (
            stats.ttest_1samp(gain.mean(axis), 0) for axis in (1, 0)
        )
        assert one.interval_over_seeds == pytest.approx(
            over_seeds.confidence_interval(0.95)
        )
        f, g = (
            over_seeds.statistic**2,
            over_pictures.statistic**2,
        )  # Clark 1973, equation 15
        freedom = (f + g) ** 2 / (f**2 / over_pictures.df + g**2 / over_seeds.df)
        p = stats.f.sf(f * g / (f + g), 1, freedom)
        assert one.p == pytest.approx(max(p, over_seeds.pvalue))
        assert (np.prod(one.interval_over_both) > 0) == (one.p < 0.05)


def test_needed_seeds_give_the_power():
    rng = np.random.default_rng(2)
    base = np.zeros((3, 10_000), bool)
    frozen = np.stack([np.arange(10_000) < 200 + 100 * s for s in (-2, 0, 2)])
    (one,) = compare_all({'frozen': frozen, 'linear': base}, ['frozen'], 1.0)
    assert one.verdict == 'few seeds'
    needed = one.seeds_needed
    draws = rng.normal(one.difference, 2.0, (4000, needed))
    assert np.mean(stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05) == pytest.approx(
        0.8, abs=0.04
    )


def test_no_absurd_number_is_asked_for_where_two_sensible_ones_do():
    rng = np.random.default_rng(3)
    quantiles = stats.norm.ppf([0.975, 0.8]).sum()
    asked_for_one, asked_for_both = 0, 0
    for _ in range(300):
        right = rng.random((6, 60)) < rng.uniform(0.6, 0.8, 60)
        frozen = rng.random((6, 60)) < rng.uniform(0.6, 0.9, 60)
        (one,) = compare_all({'frozen': frozen, 'linear': right}, ['frozen'], 1.0)
        if not one.verdict.startswith('few') or one.difference == 0:
            continue
        gain = 100.0 * (frozen.astype(float) - right)
        error = sum(gain.mean(axis).var(ddof=1) / (60, 6)[axis] for axis in (0, 1))
        of_both = error * (quantiles / one.difference) ** 2
        of_seeds, of_pictures = one.seeds_needed / 6, one.pictures_needed / 60
        if of_seeds and of_pictures:
            asked_for_both += 1
            assert of_seeds == pytest.approx(max(of_both, 1) + 2 / 6, abs=0.5)
        elif max(of_seeds, of_pictures) > 11:  # a tenfold, and the term for Student's t
            asked_for_one += 1
            assert of_both > max(of_seeds, of_pictures) - 1
    assert asked_for_one and asked_for_both


@pytest.mark.parametrize('margin, text', [(0.25, '0.25 points'), (1, '1 point')])
def test_a_margin_is_named_as_it_was_tested(margin, text):
    same = np.ones((8, 5000), bool)
    (one,) = compare_all({'frozen': same, 'linear': same}, ['frozen'], margin)
    assert one.words == f'no difference larger than {text}'


@pytest.mark.parametrize(
    'seeds, pictures, verdict', [(4, 500, 'equal'), (2, 8, 'few seeds')]
)
def test_equal_trainings_do_not_differ_unless_few(seeds, pictures, verdict):
    same = np.ones((seeds, pictures), bool)
    (one,) = compare_all({'frozen': same, 'linear': same}, ['frozen'], 1.0)
    assert (
        one.verdict == verdict
        and one.interval_over_seeds == one.interval_over_both == (0, 0)
    )


def test_a_variant_without_seeds_stands_beside_every_seed():
    block = np.array([[1, 1, 0], [1, 0, 0]], bool)
    other = np.array([[1, 0, 0]], bool)
    gain = gain_of(block, other)
    assert gain.tolist() == [[0, 100, 0], [0, 0, 0]]
    more = np.array([[1, 1, 1], [0, 0, 0], [1, 1, 1]], bool)
    assert gain_of(block, more).shape == (2, 3)
