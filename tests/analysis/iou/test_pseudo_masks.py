"""Pseudo-masks, IoU, thresholds and intervals, against numbers done by hand."""

import numpy as np
import pytest
import torch

from lm4ve.analysis import Analysis, Attention, Layout, Point
from tools.analysis.iou import pseudo_masks as pm
from tools.analysis.iou.report import bootstrap_mean, make_report

# ---------------------------------------------------------------------- one image
AREAS = [
    # Of each quarter 2, 1, 3 and 4 pixels of 4.
    (['1100', '0010', '0111', '1111'], [True, False, True, True], [True] * 4),
    # 1 of 2 that count, none of none, 1 of 4, 1 of 3.
    (['1xxx', '0xxx', '101x', '0000'], [True, *[False] * 3], [True, False, True, True]),
]


@pytest.mark.parametrize('rows, foreground, counted', AREAS, ids=['all', 'ignored'])
def test_a_token_is_foreground_from_half_of_its_area(rows, foreground, counted):
    values = {'0': 0, '1': 1, 'x': pm.IGNORED}
    mask = np.array([[values[pixel] for pixel in row] for row in rows], np.uint8)
    truth, valid = pm.token_mask(mask, (2, 2))
    assert truth.tolist() == foreground
    assert valid.tolist() == counted
    truth_of_any, _ = pm.token_mask(mask, (2, 2), 'any')
    assert truth_of_any.tolist() == counted


def test_areas_are_exact_where_tokens_cut_pixels():
    rng = np.random.default_rng(0)
    mask = (rng.random((7, 10)) < 0.5).astype(np.uint8)
    # Each pixel as 3 x 4 small ones that tokens do not cut: the area by counting.
    fine = mask.repeat(3, axis=0).repeat(4, axis=1)
    expected = fine.reshape(3, 7, 4, 10).mean(axis=(1, 3)) >= 0.5 - 1e-12
    assert np.array_equal(pm.token_mask(mask, (3, 4))[0], expected.ravel())


def test_iou_equals_counting():
    cases = np.random.default_rng(0).random((200, 3, 5)) < 0.5
    for predicted, truth, valid in cases:
        # Some of the cases of five tokens have nothing to find or to count.
        if (truth & valid).any():
            expected = _by_counting(predicted[valid], truth[valid])
            assert pm.iou(predicted, truth, valid) == pytest.approx(expected, abs=1e-12)


# --------------------------------------------------------------------- activations
def analysis_of(tokens, weights, row='class token') -> Analysis:
    layout = Layout('image', 0, (2, 2))
    attention = {'encoder': Attention('a', weights, row, layout)}
    points = {'encoder': Point('m', tokens, layout)}
    return Analysis('image', torch.zeros(len(tokens), 3, 4, 4), points, attention, [])


def test_maps_are_scaled_measures_and_summed_attention():
    weights = torch.softmax(torch.randn(3, 2, 4), -1)
    analysis = analysis_of(torch.randn(3, 4, 5), weights, 'mean over tokens')
    magnitude, frequency, attention = pm.maps_of(analysis)
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
    tokens = torch.randn(1, 1, 6).double().expand(2, 4, 6)
    tokens = tokens + noise * torch.randn(2, 4, 6).double()
    weights = torch.full((2, 3, 4), 0.25).double()
    mask = np.array([[1, 0], [0, 0]], np.uint8).repeat(2, 0).repeat(2, 1)
    scores = pm.Scores()
    scores.add(pm.maps_of(analysis_of(tokens, weights)), [mask, mask], 'ab')
    assert len(scores.tables) == 1 + 3 * 3
    for key, table in scores.tables.items():
        assert np.allclose(table, 1 / 4, atol=0), key


# ---------------------------------------------------------------------- all images
def some_scores(truth: np.ndarray, **maps: np.ndarray) -> pm.Scores:
    """Scores of maps ``[images, 4]`` by point, with masks of one pixel a token."""
    scores = pm.Scores()
    token_maps = []
    for point, values in maps.items():
        token_maps.append(pm.TokenMaps('magnitude', point, values, (2, 2)))
    masks = list(truth.reshape(-1, 2, 2).astype(np.uint8))
    names = [str(i) for i in range(len(masks))]
    scores.add(token_maps, masks, names)
    return scores


def random_scores(count=12):
    rng = np.random.default_rng(0)
    maps = rng.random((count, 4))
    truth = rng.random((count, 4)) < 0.5
    truth[:, 0] = True
    return maps, truth


def row_of(report, variant: str, choice: str):
    """The first row of a variant and of a way to choose the threshold."""
    rows = report.frame.query("table == 'rows' and variant == @variant")
    return rows[rows['threshold_choice'] == choice].iloc[0]


def test_each_image_has_its_best_threshold_inverted_too():
    maps, truth = random_scores()
    report = make_report(some_scores(truth, encoder=maps), resamples=50)
    thresholds = np.arange(1, 10) / 10
    for variant, values in (('as is', maps), ('inverted', 1 - maps)):
        best = []
        for image, image_truth in zip(values, truth, strict=True):
            scores = [_by_counting(image > t, image_truth) for t in thresholds]
            best.append(max(scores))
        row = row_of(report, variant, 'best per image')
        assert row.iou == pytest.approx(np.mean(best), abs=1e-12)
        assert row.images == 12
    assert report.prior['iou'] == pytest.approx(truth.mean(), abs=1e-12)


def _by_counting(predicted, truth) -> float:
    tp = sum(p and t for p, t in zip(predicted, truth, strict=True))
    wrong = sum(p != t for p, t in zip(predicted, truth, strict=True))
    return tp / (tp + wrong)


def test_the_fixed_threshold_comes_from_its_split_alone():
    maps, truth = random_scores(30)
    fixing, rest = pm.split_images(30, 0.3, seed=4)
    assert len(fixing) == 9 and not set(fixing) & set(rest)
    assert sorted([*fixing, *rest]) == list(range(30))

    def fixed(maps):
        report = make_report(some_scores(truth, encoder=maps), 0.3, 50, seed=4)
        assert report.fixing_images == 9
        return row_of(report, 'as is', 'fixed')

    row = fixed(maps)

    def mean(images, threshold):
        return np.mean([_by_counting(maps[i] > threshold, truth[i]) for i in images])

    assert row.threshold == max(
        (t / 10 for t in range(1, 10)), key=lambda t: mean(fixing, t)
    )
    assert row.iou == pytest.approx(mean(rest, row.threshold), abs=1e-12)
    assert row.images == 21
    changed = maps.copy()
    changed[rest] = 1 - changed[rest]
    other = fixed(changed)
    assert other.threshold == row.threshold and other.iou != row.iou


def test_shuffled_maps_keep_their_values_and_know_nothing():
    truth = np.tile([True, False, False, False], (400, 1))
    scores = some_scores(truth, encoder=truth.astype(float))
    # A random token of four is right in a quarter of the images.
    key = ('magnitude', 'encoder', 'shuffled')
    ious = scores.tables[key][:, 0]
    assert set(ious) == {0.0, 1.0}
    assert abs(ious.mean() - 0.25) < 0.07
    again = some_scores(truth, encoder=truth.astype(float))
    assert np.array_equal(ious, again.tables[key][:, 0])


def test_the_bootstrap_equals_a_plain_one():
    values = np.random.default_rng(0).random(30)
    mean, low, high = bootstrap_mean(values, resamples=400, seed=7)
    rng = np.random.default_rng(7)
    means = [values[rng.integers(0, 30, 30)].mean() for _ in range(400)]
    assert mean == pytest.approx(values.mean(), abs=1e-12)
    assert low == pytest.approx(np.percentile(means, 2.5), abs=1e-12)
    assert high == pytest.approx(np.percentile(means, 97.5), abs=1e-12)
