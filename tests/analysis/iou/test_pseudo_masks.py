"""Pseudo-masks, IoU, thresholds and intervals, against numbers done by hand."""

import numpy as np
import pytest
import torch

from lm4ve.analysis import Analysis, Attention, Layout, Point
from lm4ve.analysis.iou.pseudo_masks import (
    IGNORED,
    Scores,
    TokenMaps,
    iou,
    maps_of,
    split_images,
    token_mask,
)
from lm4ve.analysis.iou.report import bootstrap_mean, summarize
from lm4ve.errors import UserError


# ---------------------------------------------------------------------- one image
def test_a_token_is_foreground_from_half_of_its_area():
    mask = np.array(
        [
            [1, 1, 0, 0],
            [0, 0, 1, 0],  # upper left: 2 of 4; upper right: 1 of 4
            [0, 1, 1, 1],
            [1, 1, 1, 1],  # lower left: 3 of 4; lower right: 4 of 4
        ],
        np.uint8,
    )
    truth, valid = token_mask(mask, (2, 2))
    assert truth.tolist() == [True, False, True, True]
    assert valid.all()
    assert token_mask(mask, (2, 2), 'any')[0].all()


def test_ignored_pixels_are_left_out_of_the_area():
    i = IGNORED
    mask = np.array(
        [
            [1, i, i, i],
            [0, i, i, i],  # upper left: 1 of 2 counted; upper right: none
            [1, 0, 1, i],
            [0, 0, 0, 0],  # lower left: 1 of 4; lower right: 1 of 3
        ],
        np.uint8,
    )
    truth, valid = token_mask(mask, (2, 2))
    assert truth.tolist() == [True, False, False, False]
    assert valid.tolist() == [True, False, True, True]


def test_areas_are_exact_where_tokens_cut_pixels():
    rng = np.random.default_rng(0)
    mask = (rng.random((7, 10)) < 0.5).astype(np.uint8)
    # Each pixel as 3 x 4 small ones that tokens do not cut: the area by counting.
    fine = mask.repeat(3, axis=0).repeat(4, axis=1)
    expected = fine.reshape(3, 7, 4, 10).mean(axis=(1, 3)) >= 0.5 - 1e-12
    assert np.array_equal(token_mask(mask, (3, 4))[0], expected.ravel())


def test_iou_of_cases_done_by_hand():
    truth = np.array([1, 1, 0, 0, 1], bool)
    cases = [
        ([1, 0, 1, 0, 1], None, 2 / 4),  # TP 2, FN 1, FP 1
        ([1, 1, 0, 0, 1], None, 1.0),
        ([0, 0, 1, 1, 0], None, 0.0),
        ([0, 0, 0, 0, 0], None, 0.0),
        ([1, 1, 1, 1, 1], None, 3 / 5),  # the class prior
        ([1, 0, 1, 0, 1], [1, 1, 0, 1, 0], 1 / 2),  # the false positive not counted
    ]
    for predicted, valid, expected in cases:
        found = iou(
            np.array(predicted, bool), truth, None if valid is None else np.array(valid, bool)
        )
        assert found == pytest.approx(expected, abs=1e-12), (predicted, valid)
    assert np.isnan(iou(np.zeros(5, bool), np.zeros(5, bool)))


# --------------------------------------------------------------------- activations
def analysis_of(
    tokens: torch.Tensor,
    weights: torch.Tensor = None,
    row: str = 'class token',
    inputs=(3, 4, 4),
    views=1,
) -> Analysis:
    layout = Layout('image', 0, (2, 2))
    attention = {} if weights is None else {'encoder': Attention('a', weights, row, layout)}
    return Analysis(
        'image',
        torch.zeros(len(tokens), *inputs),
        {'encoder': Point('m', tokens, layout)},
        attention,
        [],
        views,
    )


def test_maps_are_scaled_measures_and_summed_attention():
    torch.manual_seed(0)
    weights = torch.softmax(torch.randn(3, 2, 4), -1)
    analysis = analysis_of(torch.randn(3, 4, 5), weights, 'mean over tokens')
    magnitude, frequency, attention = maps_of(analysis)
    point = analysis.points['encoder']
    for found, name in ((magnitude, 'magnitude'), (frequency, 'frequency')):
        assert np.allclose(found.values, point.measure(name), atol=1e-12)
        assert found.note == ''
    summed = weights.double().sum(1).numpy()
    low, high = summed.min(1, keepdims=True), summed.max(1, keepdims=True)
    assert np.allclose(attention.values, (summed - low) / (high - low), atol=1e-12)
    assert attention.note == 'mean over tokens'


@pytest.mark.parametrize('noise', [0.0, 1e-8], ids=['equal', 'rounding'])
def test_a_constant_activation_scores_the_class_prior(noise):
    """It ranks no token above another: everything is foreground, inverted too."""
    torch.manual_seed(0)
    tokens = torch.randn(1, 1, 6).double().expand(2, 4, 6)
    tokens = tokens + noise * torch.randn(2, 4, 6).double()
    weights = torch.full((2, 3, 4), 0.25).double()
    mask = np.array([[1, 0], [0, 0]], np.uint8).repeat(2, 0).repeat(2, 1)
    scores = Scores()
    scores.add(maps_of(analysis_of(tokens, weights)), [mask, mask], 'ab')
    assert len(scores.tables) == 1 + 3 * 3
    for key, table in scores.tables.items():
        assert np.allclose(table, 1 / 4, atol=0), key


@pytest.mark.parametrize(
    'change', [dict(inputs=(1, 3, 4, 4, 4)), dict(views=2)], ids=['video', 'views']
)
def test_models_of_other_tasks_are_refused(change):
    with pytest.raises(UserError, match='sees each image once'):
        maps_of(analysis_of(torch.randn(2, 4, 5), **change))


# ---------------------------------------------------------------------- all images
def some_scores(maps: np.ndarray, truth: np.ndarray, **kwargs) -> Scores:
    """Scores of maps ``[images, 4]`` with masks of one pixel a token."""
    scores = Scores(**kwargs)
    scores.add(
        [TokenMaps('magnitude', 'encoder', maps, (2, 2))],
        list(truth.reshape(-1, 2, 2).astype(np.uint8)),
        [f'{i}' for i in range(len(maps))],
    )
    return scores


def random_scores(count=12, seed=0):
    rng = np.random.default_rng(seed)
    maps = rng.random((count, 4))
    truth = rng.random((count, 4)) < 0.5
    truth[:, 0] = True
    return maps, truth


def rows_of(report, table='rows', **fields):
    """Rows of a report by their fields."""
    frame = report.frame[report.frame['table'] == table]
    for name, value in fields.items():
        frame = frame[frame[name] == value]
    return frame


def test_each_image_has_its_best_threshold_inverted_too():
    maps, truth = random_scores()
    report = summarize(some_scores(maps, truth), resamples=50)
    thresholds = np.arange(1, 10) / 10
    for variant, m in (('as is', maps), ('inverted', 1 - maps)):
        best = [
            max(_by_counting(x > t, y) for t in thresholds) for x, y in zip(m, truth, strict=True)
        ]
        row = rows_of(report, variant=variant, threshold_choice='best per image').iloc[0]
        assert row.iou == pytest.approx(np.mean(best), abs=1e-12) and row.images == 12
    assert report.prior['iou'] == pytest.approx(truth.mean(), abs=1e-12)


def _by_counting(predicted, truth) -> float:
    tp = sum(p and t for p, t in zip(predicted, truth, strict=True))
    wrong = sum(p != t for p, t in zip(predicted, truth, strict=True))
    return tp / (tp + wrong)


def test_the_fixed_threshold_comes_from_its_split_alone():
    maps, truth = random_scores(30)
    fixing, rest = split_images(30, 0.3, seed=4)
    assert len(fixing) == 9 and not set(fixing) & set(rest)
    assert sorted([*fixing, *rest]) == list(range(30))

    def fixed(maps):
        report = summarize(some_scores(maps, truth), 0.3, 50, seed=4)
        assert report.fixing_images == 9
        return rows_of(report, variant='as is', threshold_choice='fixed').iloc[0]

    row = fixed(maps)

    def mean(images, threshold):
        return np.mean([_by_counting(maps[i] > threshold, truth[i]) for i in images])

    assert row.threshold == max((t / 10 for t in range(1, 10)), key=lambda t: mean(fixing, t))
    assert row.iou == pytest.approx(mean(rest, row.threshold), abs=1e-12)
    assert row.images == 21
    changed = maps.copy()
    changed[rest] = 1 - changed[rest]
    other = fixed(changed)
    assert other.threshold == row.threshold and other.iou != row.iou


def test_shuffled_maps_keep_their_values_and_know_nothing():
    truth = np.tile([True, False, False, False], (400, 1))
    scores = some_scores(truth.astype(float), truth)
    # A random token of four is right in a quarter of the images.
    found = scores.tables['magnitude', 'encoder', 'shuffled'][:, 0]
    assert set(found) == {0.0, 1.0} and abs(found.mean() - 0.25) < 0.07
    again = some_scores(truth.astype(float), truth)
    assert np.array_equal(found, again.tables['magnitude', 'encoder', 'shuffled'][:, 0])


def test_images_without_foreground_tokens_are_left_out():
    maps, truth = random_scores(4)
    truth[2] = False
    scores = some_scores(maps, truth)
    assert scores.names == ['0', '1', '3'] and scores.empty == ['2']
    assert all(len(t) == 3 for t in scores.tables.values())


def test_differences_are_paired_by_image():
    maps, truth = random_scores(20)
    scores = Scores()
    # 'after' is the same map with a little more light, so the pairs hardly differ.
    scores.add(
        [
            TokenMaps('magnitude', 'encoder', maps, (2, 2)),
            TokenMaps('magnitude', 'after', np.sqrt(maps), (2, 2)),
        ],
        list(truth.reshape(-1, 2, 2).astype(np.uint8)),
        [f'{i}' for i in range(20)],
    )
    report = summarize(scores, resamples=300, seed=1)
    best = dict(variant='as is', threshold_choice='best per image')
    row = rows_of(report, 'differences', **best).iloc[0]
    assert row.point == 'after - encoder'
    before, after = (scores.tables['magnitude', p, 'as is'].max(1) for p in ('encoder', 'after'))
    expected = bootstrap_mean(after - before, 300, 1)
    assert (row.iou, row.low, row.high) == pytest.approx(expected)
    single = rows_of(report, point='after', **best).iloc[0]
    assert row.high - row.low < single.high - single.low


def test_the_bootstrap_equals_a_plain_one():
    values = np.random.default_rng(0).random(30)
    mean, low, high = bootstrap_mean(values, resamples=400, seed=7)
    rng = np.random.default_rng(7)
    means = np.array([values[rng.integers(0, 30, 30)].mean() for _ in range(400)])
    expected = values.mean(), np.percentile(means, 2.5), np.percentile(means, 97.5)
    assert (mean, low, high) == pytest.approx(expected, abs=1e-12)


def test_a_single_image_has_no_interval():
    mean, low, high = bootstrap_mean(np.array([0.5]))
    assert mean == 0.5 and np.isnan(low) and np.isnan(high)


@pytest.mark.parametrize('count, share', [(10, 1.0), (1, 0.5)])
def test_images_that_cannot_be_split_are_refused(count, share):
    with pytest.raises(UserError, match='must be'):
        split_images(count, share, 0)
