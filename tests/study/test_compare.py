"""One interval over seeds and groups of pictures, and the verdict that follows from it."""

import gc
import math

import numpy as np
import pytest
from scipy import stats

from lm4ve.study.compare import compare, estimate_score

SEEDS = 5


@pytest.fixture(autouse=True)
def quick_correction(monkeypatch):
    """statsmodels collects garbage in every correction, for a quarter of a second."""
    monkeypatch.setattr(gc, 'collect', lambda *args: 0)


def draw_scores(pictures: int = 400, **accuracies: float) -> dict[str, np.ndarray]:
    """Return variants that are right on so many pictures of the same, with five seeds."""
    rng = np.random.default_rng(3)
    easy = rng.standard_normal(pictures)
    scores = {}
    for name, accuracy in accuracies.items():
        noise = 0.3 * rng.standard_normal((SEEDS, pictures))
        latent = easy + noise + math.sqrt(1.09) * stats.norm.ppf(accuracy)
        scores[name] = 100.0 * (latent > 0)
    return scores


def test_interval_adds_t_intervals_over_seeds_and_pictures():
    scores = draw_scores(a=0.8, b=0.7)
    (result,) = compare(scores, [('a', 'b')], margin=1)
    gain = scores['a'] - scores['b']
    halves = []
    for axis in (0, 1):
        interval = stats.ttest_1samp(gain.mean(axis), 0).confidence_interval(0.95)
        halves.append((interval.high - interval.low) / 2)
    half = math.hypot(*halves)
    assert result.difference == pytest.approx(gain.mean())
    assert result.low == pytest.approx(gain.mean() - half)
    assert result.high == pytest.approx(gain.mean() + half)
    low, _ = result.interval(1 - result.p)
    assert low == pytest.approx(0, abs=1e-5)


def test_verdict_is_where_the_interval_lies():
    scores = draw_scores(
        2000, a=0.8, much=0.7, more=0.76, little=0.79, same=0.8, less=0.9
    )
    scores['equal'] = scores['a'].copy()
    scores['equal'][:, 0] = 100
    planned = [('a', other) for other in scores if other != 'a']
    results = compare(scores, planned, margin=1)
    for result in results:
        excludes_zero = result.low > 0 or result.high < 0
        assert excludes_zero == (result.corrected_p < 0.05)
        if -1 < result.low and result.high < 1:
            assert result.verdict == 'equal'
        elif excludes_zero:
            assert result.verdict == ('better' if result.low > 0 else 'worse')
        else:
            assert result.verdict == 'open'
    assert {result.verdict for result in results} == {
        'better',
        'worse',
        'equal',
        'open',
    }


@pytest.mark.parametrize('pictures', [1, 2, 5])
def test_equal_differences_of_few_seeds_have_the_variance_of_rounding(pictures):
    other = np.array([[95.0], [95.1852], [94.8148]], np.float32)
    gain = np.float32(100 * pictures / 540)
    scores = {'a': other + gain, 'b': other}
    (result,) = compare(scores, [('a', 'b')], margin=0.1, step=100 / 540)
    # A mean of three, whose variance is that of a uniform distribution of width 1.
    expected = 2 * stats.t.sf(pictures * math.sqrt(3 * 12), 2)
    assert result.p == pytest.approx(expected, rel=1e-3)
    (unknown,) = compare(scores, [('a', 'b')], margin=0.1)
    assert (unknown.verdict, unknown.reason) == ('open', 'few seeds')
    assert math.isnan(unknown.low)


def test_copies_of_a_picture_in_one_group_count_once():
    scores = draw_scores(60, a=0.8, b=0.7)
    copies = {name: np.repeat(score, 10, axis=1) for name, score in scores.items()}
    (single,) = compare(scores, [('a', 'b')], margin=1)
    (grouped,) = compare(copies, [('a', 'b')], 1, groups=np.arange(600) // 10)
    assert (grouped.low, grouped.high) == pytest.approx((single.low, single.high))
    (ignored,) = compare(copies, [('a', 'b')], 1)
    assert ignored.high - ignored.low < grouped.high - grouped.low


def test_each_picture_counts_once_where_groups_differ_in_size():
    scores = draw_scores(400, a=0.8, b=0.7)
    groups = np.minimum(np.arange(400) // 5, 60)  # the last one has 100 pictures
    (result,) = compare(scores, [('a', 'b')], 1, groups=groups)
    assert result.difference == pytest.approx(scores['a'].mean() - scores['b'].mean())
    assert (result.groups, round(result.equal_groups)) == (61, 14)


@pytest.mark.parametrize(
    'groups, reason',
    [
        (np.arange(70) // 10, 'few groups'),
        (np.maximum(np.arange(70) - 40, 0), 'few groups'),  # 30 groups, one of 41
        (None, ''),
    ],
)
def test_few_groups_are_open_without_an_interval(groups, reason):
    scores = draw_scores(70, a=0.99, b=0.3)
    (result,) = compare(scores, [('a', 'b')], 1, groups=groups)
    assert result.reason == reason
    assert math.isnan(result.low) == bool(reason)
    assert result.verdict == ('open' if reason else 'better')
    assert not result.needed_pictures


def test_all_planned_pairs_count_for_the_correction():
    scores = draw_scores(a=0.8, b=0.77)
    planned = [('a', 'b'), ('a', 'not yet trained'), ('a', 'nor this')]
    (alone,) = compare(scores, planned[:1], margin=1)
    first, missing, _ = compare(scores, planned, margin=1)
    assert alone.corrected_p == alone.p == first.p
    assert first.corrected_p == pytest.approx(3 * first.p)
    assert first.low < alone.low
    assert (missing.verdict, missing.reason) == ('open', 'no scores')


def test_seeds_without_a_result_are_left_out_in_pairs():
    scores = draw_scores(a=0.8, b=0.7)
    (fewer,) = compare({n: s[1:] for n, s in scores.items()}, [('a', 'b')], 1)
    scores['b'][0] = np.nan
    (result,) = compare(scores, [('a', 'b')], 1)
    assert result == fewer
    scores['b'][:] = np.nan
    assert compare(scores, [('a', 'b')], 1)[0].reason == 'no scores'


def test_one_training_of_a_pair_is_too_few():
    scores = draw_scores(a=0.8, b=0.7)
    (beside,) = compare(scores | {'b': scores['b'][:1]}, [('a', 'b')], 1)
    assert beside.seeds == SEEDS
    (result,) = compare({n: s[:1] for n, s in scores.items()}, [('a', 'b')], 1)
    assert (result.verdict, result.reason) == ('open', 'few seeds')


@pytest.mark.parametrize('pictures, verdict', [(70, 'open'), (2000, 'equal')])
def test_few_pictures_without_any_difference_do_not_show_equality(pictures, verdict):
    right = np.full((SEEDS, pictures), 100.0)
    (result,) = compare({'a': right, 'b': right}, [('a', 'b')], margin=1)
    assert result.verdict == verdict


def test_needed_numbers_decide_if_all_stays_as_it_is():
    scores = draw_scores(300, a=0.8, b=0.77)
    (result,) = compare(scores, [('a', 'b')], margin=1)
    assert result.verdict == 'open'
    seeds = math.ceil(max(result.needed_seeds, SEEDS) / SEEDS)
    pictures = math.ceil(max(result.needed_pictures, 300) / 300)
    more = {name: np.tile(score, (seeds, pictures)) for name, score in scores.items()}
    (result,) = compare(more, [('a', 'b')], margin=1)
    assert result.verdict == 'better'


def test_whole_trainings_never_need_pictures():
    rng = np.random.default_rng(0)
    scores = {'a': rng.normal(80, 3, (3, 1)), 'b': rng.normal(80, 3, (3, 1))}
    (result,) = compare(scores, [('a', 'b')], margin=1)
    assert result.reason == 'few seeds'
    assert result.needed_seeds > 3
    assert result.needed_pictures == 0


@pytest.mark.parametrize('pictures', [70, 1])
def test_no_more_than_ten_times_as_many_are_asked_for(pictures):
    noise = np.random.default_rng(0).normal(0, 3, (SEEDS, pictures))
    scores = {'a': noise - noise.mean() + 0.1, 'b': np.zeros((SEEDS, pictures))}
    (result,) = compare(scores, [('a', 'b')], margin=0.5)
    assert (result.verdict, result.reason) == ('open', 'small difference')
    assert result.needed_seeds == result.needed_pictures == 0


@pytest.mark.parametrize('size', [1, 10])
def test_a_score_has_the_interval_of_the_comparison_with_nothing(size):
    scores = draw_scores(400, a=0.8) | {'nothing': np.zeros((SEEDS, 400))}
    groups = np.arange(400) // size
    (expected,) = compare(scores, [('a', 'nothing')], margin=1, groups=groups)
    score = estimate_score(scores['a'], SEEDS, margin=1, groups=groups)
    assert (score.low, score.high) == (expected.low, expected.high)
    assert score.mean == expected.difference
    # One training is the same with each seed: what is left are the pictures.
    single = estimate_score(scores['a'][:1], SEEDS, margin=1, groups=groups)
    assert 0.5 * score.half < single.half < 2 * score.half


def test_few_groups_give_a_score_no_interval():
    points = draw_scores(70, a=0.8)['a']
    score = estimate_score(points, SEEDS, margin=1, groups=np.arange(70) // 10)
    assert math.isnan(score.half) and score.mean == pytest.approx(points.mean())


@pytest.mark.parametrize('chance, reason', [(50, 'at chance level'), (10, 'few')])
def test_at_chance_level_no_number_is_promised(chance, reason):
    scores = draw_scores(100, a=0.5, b=0.45)
    (result,) = compare(scores, [('a', 'b')], margin=1, chance=chance)
    assert result.reason.startswith(reason)
    promised = result.needed_seeds + result.needed_pictures
    assert bool(promised) == (chance == 10)
