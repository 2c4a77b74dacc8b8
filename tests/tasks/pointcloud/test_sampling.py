"""Which points of a cloud the paper's configs train and test on."""

import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmengine.config import Config

from lm4ve.errors import UserError
from lm4ve.tasks import pointcloud as pc
from tests.helpers.tasks import CONFIGS

#: Piece of a config -> points of its clouds, and of its samples.
SETS = {'scanobjectnn.py': (2048, 1024), 'modelnet40-1k.py': (8192, 1024)}
#: It keeps the coordinates of a point, so that it can be found again.
CHOOSES = 'lm4ve.SamplePoints'


def chooser(pipeline: list) -> Compose:
    """Build the transforms of a pipeline that choose points."""
    return Compose([t for t in pipeline if t['type'] == CHOOSES])


def surface(count: int) -> np.ndarray:
    """Points on a sphere, float32 ``[count, 3]``, farthest first, as ModelNet40 keeps them."""
    points = np.random.default_rng(0).normal(size=(count, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return pc.SamplePoints(count, 'fps')(dict(points=points.astype('f4')))['points']


def indices(transform: Compose, points: np.ndarray) -> list:
    """Which points of the cloud a pass through the transforms gives, in order."""
    number = {point.tobytes(): i for i, point in enumerate(points)}
    chosen = transform(dict(points=points.copy(), sample_idx=0))['points']
    return [number[point.tobytes()] for point in chosen]


@pytest.mark.parametrize('name', SETS)
def test_an_epoch_trains_on_other_points_and_a_test_never_does(name):
    cfg = Config.fromfile(CONFIGS / '_base_/pointcloud' / name)
    stored, drawn = SETS[name]
    points = surface(stored)
    trained = chooser(cfg.train_pipeline)
    np.random.seed(0)
    epochs = [indices(trained, points) for _ in range(12)]
    assert {len(set(epoch)) for epoch in epochs} == {drawn}
    # From one start these would be 1,200 for any number of epochs.
    seen = len(set().union(*epochs))
    assert seen > 1800
    # A resumed run, whose generators are seeded alike, sees the same.
    np.random.seed(0)
    assert [indices(trained, points) for _ in range(2)] == epochs[:2]
    tested = chooser(cfg.test_pipeline)
    first = indices(tested, points)
    assert len(set(first)) == drawn
    assert indices(tested, points) == first


@pytest.mark.parametrize('name', SETS)
def test_a_vote_draws_from_the_same_farthest_points_each_time(name):
    cfg = Config.fromfile(CONFIGS / '_base_/pointcloud' / name)
    assert cfg.tta_pipeline[-1].type == 'lm4ve.RepeatDraws'
    points = surface(SETS[name][0])
    np.random.seed(0)
    first = indices(chooser(cfg.tta_pipeline[:-1]), points)
    assert len(first) == 1200
    assert indices(chooser(cfg.tta_pipeline[:-1]), points) == first
    assert chooser(cfg.tta_pipeline[-1].transforms).transforms[0].num == 1024


def pick(points: np.ndarray, num: int, start: str) -> list:
    """Return the indices of farthest points, in the order of picking."""
    return indices(pc.SamplePoints(num, 'fps', start=start), points)


@pytest.mark.parametrize('count, num', [(2, 1), (3, 2), (33, 20), (2048, 1200)])
@pytest.mark.parametrize('start', ['first', 'random'])
def test_each_start_gives_the_picks_of_the_models_operator(count, num, start):
    points = np.random.default_rng(count).normal(size=(count, 3)).astype('f4')
    picks = pick(points, num, start)
    if start == 'first':
        assert picks[0] == 0
    # The operator starts at its first point.
    begun = np.roll(points, -picks[0], axis=0)
    expected = pc.farthest_point_sample(torch.from_numpy(begun)[None], num)[0]
    assert picks == ((expected.numpy() + picks[0]) % count).tolist()


def test_a_random_start_is_any_point_and_follows_the_seed():
    points = np.random.default_rng(0).normal(size=(20, 3)).astype('f4')
    np.random.seed(0)
    starts = [pick(points, 2, 'random')[0] for _ in range(400)]
    assert set(starts) == set(range(20))
    np.random.seed(0)
    assert [pick(points, 2, 'random')[0] for _ in range(400)] == starts


@pytest.mark.parametrize('start', ['first', 'random'])
def test_equal_points_repeat_when_all_others_are_picked(start):
    points = np.repeat(np.eye(3, dtype='f4'), 20, axis=0)
    picks = pc.SamplePoints(5, 'fps', start=start)(dict(points=points))['points']
    assert len(picks) == 5 and len(np.unique(picks, axis=0)) == 3


@pytest.mark.parametrize('method', ['random', 'first'])
def test_a_start_is_refused_where_nothing_starts(method):
    with pytest.raises(UserError, match="start='random'.*method='fps'"):
        pc.SamplePoints(5, method, start='random')
