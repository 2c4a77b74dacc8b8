"""Farthest points and neighbors equal their definition; groups are in range."""

import numpy as np
import pytest
import torch

from lm4ve.errors import UserError
from lm4ve.tasks.base import point_ops
from lm4ve.tasks.pointcloud import farthest_point_sample, group_points, nearest_neighbors
from tests.tasks.pointcloud.clouds import brute_force_picks

# Whole numbers: distances are exact, so that ties are ties.
_RNG = np.random.default_rng(0)
CLOUDS = {
    'random': _RNG.integers(-1000, 1000, (2, 60, 3)),
    'duplicated': np.repeat(_RNG.integers(-9, 9, (2, 20, 3)), 3, axis=1),
    'collinear': np.arange(60)[None, :, None] * np.array([[[1, 2, -1]], [[3, 0, 0]]]),
    'all equal': np.full((2, 60, 3), 7),
}


@pytest.fixture(params=CLOUDS)
def clouds(request):
    return torch.from_numpy(CLOUDS[request.param]).float()


@pytest.mark.parametrize('num', [1, 7, 60])
def test_farthest_points_are_those_of_the_definition(clouds, num):
    picks = farthest_point_sample(clouds, num)
    assert picks.dtype == torch.int64
    for points, mine in zip(clouds.numpy(), picks.tolist(), strict=True):
        assert mine == brute_force_picks(points, num)


def test_fewer_picks_are_the_first_of_more(clouds):
    more = farthest_point_sample(clouds, 20)
    assert torch.equal(more[:, :5], farthest_point_sample(clouds, 5))


@pytest.mark.parametrize('chunk', [point_ops._CHUNK, 500])
@pytest.mark.parametrize('k', [1, 8, 60])
def test_neighbors_are_the_nearest(clouds, k, chunk, monkeypatch):
    monkeypatch.setattr(point_ops, '_CHUNK', chunk)
    centers = clouds[:, ::7] + 1
    found = nearest_neighbors(clouds, centers, k)
    assert found.shape == (2, centers.shape[1], k)
    squares = (
        (centers.numpy()[:, :, None].astype(int) - clouds.numpy()[:, None].astype(int)) ** 2
    ).sum(-1)
    # Which of equally near points is free; their distances are not.
    mine = np.take_along_axis(squares, found.numpy(), axis=-1)
    assert (mine == np.sort(squares, axis=-1)[..., :k]).all()
    assert all(len(set(row)) == k for row in found.flatten(0, 1).tolist())


def test_points_far_from_the_origin_keep_their_neighbors():
    """The matrix-product form of the distance would lose these to rounding."""
    points = torch.arange(8.0)[None, :, None] * torch.tensor([0.125, 0, 0]) + 2048
    found = nearest_neighbors(points, points, 1)
    assert found.flatten().tolist() == list(range(8))


def test_mmcv_operators_give_the_same_groups(monkeypatch):
    """By mmcv's signatures: int32 [B, G], and neighbors as [B, k, G]."""

    class Operators:
        calls = 0

        @classmethod
        def furthest_point_sample(cls, points, num):
            cls.calls += 1
            return torch.tensor(
                [brute_force_picks(p, num) for p in points.numpy()], dtype=torch.int32
            )

        @classmethod
        def knn(cls, k, xyz, center_xyz=None, transposed=False):
            cls.calls += 1
            assert not transposed
            distance = (center_xyz[:, :, None] - xyz[:, None]).norm(dim=-1)
            return distance.argsort(-1)[..., :k].transpose(1, 2).int()

    points = torch.from_numpy(CLOUDS['random']).float()
    centers, index = group_points(points, 6, 5)
    monkeypatch.setattr(point_ops, 'mmcv_operators', lambda points: Operators)
    others, theirs = group_points(points, 6, 5)
    assert Operators.calls == 2
    assert torch.equal(centers, others)
    assert torch.equal(index.sort(-1).values, theirs.sort(-1).values)
    # More than mmcv's kernel can hold: plain torch.
    many = torch.randn(1, 120, 3)
    nearest_neighbors(many, many[:, :2], 110)
    assert Operators.calls == 2


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_a_gpu_gives_the_same_groups(clouds):
    centers, index = group_points(clouds, 6, 5)
    theirs, found = group_points(clouds.cuda(), 6, 5)
    assert theirs.is_cuda and found.is_cuda
    assert torch.equal(centers, theirs.cpu())


@pytest.mark.parametrize(
    'call, found',
    [
        (lambda x: farthest_point_sample(x, 9), '9 picks of clouds of 8'),
        (lambda x: nearest_neighbors(x, x, 9), '9 neighbors of clouds of 8'),
        (lambda x: nearest_neighbors(x, x, 0), '0 neighbors'),
        (lambda x: farthest_point_sample(x[0], 2), r'\[B, N, 3\], got \[8, 3\]'),
        (lambda x: group_points(x, 4, 9), '8 points cannot be cut.*group_size=9'),
        (lambda x: group_points(x, 9, 4), 'num_groups=9'),
    ],
)
def test_clouds_that_are_too_small_are_refused(call, found):
    with pytest.raises(UserError, match=found):
        call(torch.randn(2, 8, 3))
