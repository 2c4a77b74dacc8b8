"""Metrics against cases worked out by hand, and against the ``av2`` package."""

import dataclasses

import numpy as np
import pytest

from lm4ve.errors import UserError
from lm4ve.tasks.motion import MotionMetric, forecast_metrics

TRUTH = np.array([[1.0, 0.0], [2.0, 0.0]])


def line(*offsets):
    """The truth with y replaced."""
    return np.stack([TRUTH[:, 0], offsets], axis=-1)


# y offsets of the predictions, their probabilities, k, valid, and what follows:
# (minADE, minFDE, MR, brier-minFDE) for Argoverse 1, then for Argoverse 2.
HALF, ALL = [0.5, 0.5], [True, True]
CASES = {
    # ADE 1 and 1.5; FDE 2 and 1: the smallest FDE has the larger ADE.
    'minADE-of-minFDE': ([(0, 2), (2, 1)], HALF, 6, ALL, (1.5, 1, 0, 1.25), (1, 1, 0, 1.25)),
    'one-prediction': ([(3, 3)], [1.0], 6, ALL, (3, 3, 1, 3), (3, 3, 1, 3)),
    'two-meters-is-no-miss': ([(0, 2)], [1.0], 1, ALL, (1, 2, 0, 2), (1, 2, 0, 2)),
    # Argoverse 1 normalizes .6 to 1 over the one that is kept.
    'k-most-probable': ([(0, 0), (3, 5)], [0.4, 0.6], 1, ALL, (4, 5, 1, 5), (4, 5, 1, 5.16)),
    # .3 of .8 is .375: (1 - .375)^2 = .390625; unnormalized .7^2 = .49.
    'renormalized-over-kept': (
        *([(0, 0), (4, 4), (8, 8)], [0.3, 0.5, 0.2], 2, ALL),
        *((0, 0, 0, 0.390625), (0, 0, 0, 0.49)),
    ),
    'fde-tie-more-probable': (
        *([(4, 1), (0, 1)], [0.25, 0.75], 6, ALL),
        *((0.5, 1, 0, 1.0625), (0.5, 1, 0, 1.0625)),
    ),
    'fde-tie-first': ([(4, 1), (0, 1)], HALF, 6, ALL, (2.5, 1, 0, 1.25), (0.5, 1, 0, 1.25)),
    'probability-tie-first': ([(1, 1), (0, 0)], HALF, 1, ALL, (1, 1, 0, 1), (1, 1, 0, 1.25)),
    'large-k': ([(1, 1), (2, 3)], HALF, 100, None, (1, 1, 0, 1.25), (1, 1, 0, 1.25)),
    # Only the first step is known: it is the mean and the end.
    'no-end': ([(3, 0), (1, 9)], HALF, 6, [True, False], (1, 1, 0, 1.25), (1, 1, 0, 1.25)),
    'no-start': ([(3, 0), (1, 9)], HALF, 6, [False, True], (0, 0, 0, 0.25), (0, 0, 0, 0.25)),
}


@pytest.mark.parametrize('convention, at', [('argoverse1', 4), ('argoverse2', 5)])
@pytest.mark.parametrize('case', CASES)
def test_equals_hand_computed(case, convention, at):
    offsets, p, k, valid, *_ = CASES[case]
    lines = np.stack([line(*o) for o in offsets])
    valid = None if valid is None else np.array(valid)
    found = forecast_metrics(lines, np.array(p), TRUTH, valid, k, convention)
    assert list(found) == ['minADE', 'minFDE', 'MR', 'brier-minFDE']
    np.testing.assert_allclose(list(found.values()), CASES[case][at], atol=1e-12)


@pytest.mark.parametrize('seed', range(5))
def test_equals_av2_on_random_input(seed):
    av2 = pytest.importorskip('av2.datasets.motion_forecasting.eval.metrics')
    rng = np.random.default_rng(seed)
    predictions, truth = rng.normal(0, 2, (6, 60, 2)), rng.normal(0, 2, (60, 2))
    p = rng.dirichlet(np.ones(6))
    found = forecast_metrics(predictions, p, truth, k=6, convention='argoverse2')
    fde = av2.compute_fde(predictions, truth)
    assert found['minADE'] == pytest.approx(av2.compute_ade(predictions, truth).min())
    assert found['minFDE'] == pytest.approx(fde.min())
    assert found['MR'] == av2.compute_is_missed_prediction(predictions, truth).all()
    brier = av2.compute_brier_fde(predictions, truth, p)
    assert found['brier-minFDE'] == pytest.approx(brier[fde.argmin()])


INVALID_FORECASTS = [
    dict(k=0),
    dict(probabilities=np.ones(3) / 3),
    dict(probabilities=np.array([1.5, 0.0])),
    dict(predictions=np.full((2, 2, 2), np.nan)),
    dict(valid=np.zeros(2, dtype=bool)),
]


@pytest.mark.parametrize('change', INVALID_FORECASTS)
def test_invalid_forecasts_are_refused(change):
    fields = dict(predictions=np.zeros((2, 2, 2)), truth=TRUTH, probabilities=np.array([0.5, 0.5]))
    with pytest.raises((ValueError, IndexError)):
        forecast_metrics(**{**fields, **change})


def sample(scene, shift):
    return dict(scene=scene, trajectories=(scene.future[0] + shift)[None], probabilities=np.ones(1))


def test_metric_is_mean_over_scenes_with_a_future(scenes):
    hidden = scenes[0].valid.copy()
    hidden[:, scenes[0].history_steps :] = False
    blind = dataclasses.replace(scenes[0], valid=hidden)
    metric = MotionMetric(k=(1, 6))
    shifts = zip((blind, *scenes[:2]), ([0.0, 0.0], [1.0, 0.0], [0.0, 4.0]), strict=True)
    metric.process(None, [sample(scene, shift) for scene, shift in shifts])
    found = metric.evaluate(3)
    for k in (1, 6):
        errors = [found[f'motion/{name}@{k}'] for name in ('minADE', 'minFDE')]
        assert errors == pytest.approx([2.5, 2.5])
        assert found[f'motion/MR@{k}'] == 0.5
    assert found['motion/scenes'] == 2
    metric.process(None, [sample(blind, 0.0)])
    with pytest.raises(UserError, match='No scene has a known future'):
        metric.evaluate(1)
