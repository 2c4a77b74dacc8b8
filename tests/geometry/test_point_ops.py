"""Operators on point clouds equal their definitions, with and without padding."""

import numpy as np
import pytest
import torch

from lm4ve.geometry import point_ops
from lm4ve.geometry.open3d_library import load_open3d
from tests.helpers.pointcloud.clouds import brute_force_picks


def clouds(*shape):
    """Whole numbers: distances are exact, and some lie on the surface of a ball."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(-6, 7, (*shape, 3), generator=generator).float()


def balls_by_hand(points, centers, radius, num, counts):
    """Compute what ``ball_query`` returns; of each cloud the first ``counts`` count."""
    rows = []
    for cloud, some, count in zip(points, centers, counts, strict=True):
        for center in some:
            rows.append(ball_by_hand(cloud[:count], center, radius, num))
    return torch.tensor(rows).view(*centers.shape[:2], num)


def ball_by_hand(points, center, radius, num):
    inside = []
    for index, point in enumerate(points):
        square = float((point - center).square().sum())
        if square < radius**2:
            inside.append(index)
    if not inside:
        inside = [0]
    # The first one fills the rest.
    filled = inside + [inside[0]] * num
    return filled[:num]


# Whole numbers: distances are exact, so that ties are ties.
_RNG = np.random.default_rng(0)
CLOUDS = {
    'random': _RNG.integers(-1000, 1000, (2, 60, 3)),
    'duplicated': np.repeat(_RNG.integers(-9, 9, (2, 20, 3)), 3, axis=1),
    'collinear': np.arange(60)[None, :, None] * np.array([[[1, 2, -1]], [[3, 0, 0]]]),
    'all equal': np.full((2, 60, 3), 7),
}


@pytest.fixture(params=CLOUDS)
def cloud(request):
    return torch.from_numpy(CLOUDS[request.param]).float()


@pytest.mark.parametrize('num', [1, 7, 60])
def test_farthest_points_are_those_of_the_definition(cloud, num):
    picks = point_ops.farthest_point_sample(cloud, num)
    assert picks.dtype == torch.int64
    assert torch.equal(
        picks, torch.tensor([brute_force_picks(p, num) for p in cloud.numpy()])
    )


@pytest.mark.parametrize('chunk', [point_ops._CHUNK, 500])
@pytest.mark.parametrize('k', [1, 8, 60])
def test_neighbors_are_the_nearest(cloud, k, chunk, monkeypatch):
    monkeypatch.setattr(point_ops, '_CHUNK', chunk)
    centers = cloud[:, ::7] + 1
    found = point_ops.nearest_neighbors(cloud, centers, k)
    assert found.shape == (2, centers.shape[1], k)
    squares = (centers[:, :, None] - cloud[:, None]).square().sum(-1)
    # Which of equally near points is free; their distances are not.
    assert torch.equal(squares.gather(-1, found), squares.sort(dim=-1).values[..., :k])
    assert all(len(set(row)) == k for row in found.flatten(0, 1).tolist())


def test_neighbors_and_farthest_points_are_those_of_open3d():
    open3d = load_open3d()
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(2, 700, 3, generator=generator)  # no two distances are equal
    centers = points[:, :50] + 0.1
    neighbors = point_ops.nearest_neighbors(points, centers, 16)
    picks = point_ops.farthest_point_sample(points, 90)
    for i in range(2):
        search = open3d.core.nns.NearestNeighborSearch(
            open3d.core.Tensor(points[i].numpy())
        )
        search.knn_index()
        found, _ = search.knn_search(open3d.core.Tensor(centers[i].numpy()), 16)
        assert np.array_equal(neighbors[i].numpy(), found.numpy())
        cloud = open3d.geometry.PointCloud(
            open3d.utility.Vector3dVector(points[i].double())
        )
        farthest = np.asarray(
            cloud.farthest_point_down_sample(90, start_index=0).points
        )
        # open3d returns them in the order of the cloud.
        assert np.array_equal(
            points[i][picks[i].sort().values].double().numpy(), farthest
        )


def test_points_far_from_the_origin_keep_their_neighbors():
    """The matrix-product form of the distance would lose these to rounding."""
    points = torch.arange(8.0)[None, :, None] * torch.tensor([0.125, 0, 0]) + 2048
    assert point_ops.nearest_neighbors(points, points, 1).flatten().tolist() == list(
        range(8)
    )


@pytest.mark.parametrize('chunk', [point_ops._CHUNK, 300])
@pytest.mark.parametrize(('radius', 'num'), [(3.0, 4), (5.0, 80), (0.5, 3)])
def test_balls_hold_the_first_points_within_the_radius(radius, num, chunk, monkeypatch):
    monkeypatch.setattr(point_ops, '_CHUNK', chunk)
    points = clouds(2, 60)
    far_from_all = clouds(2, 4) + 100
    centers = torch.cat((points[:, :9], far_from_all), dim=1)
    found = point_ops.ball_query(points, centers, radius, num)
    assert found.dtype == torch.int64
    assert torch.equal(found, balls_by_hand(points, centers, radius, num, (60, 60)))


@pytest.mark.parametrize('radius', [1.5, 30.0, 1e4])
def test_balls_of_any_cloud_are_those_of_the_definition(cloud, radius):
    found = point_ops.ball_query(cloud, cloud[:, ::7], radius, 12)
    assert torch.equal(found, balls_by_hand(cloud, cloud[:, ::7], radius, 12, (60, 60)))


def test_operators_read_no_value():
    """Tensors of the meta device have none, and a GPU would be waited for to read one."""
    points = torch.empty(2, 60, 3, device='meta')
    padding = torch.empty(2, 60, dtype=torch.bool, device='meta')
    picks = point_ops.farthest_point_sample(points, 9, padding)
    centers = point_ops.take_points(points, picks)
    groups = point_ops.ball_query(points, centers, 0.5, 4, padding)
    assert groups.shape == (2, 9, 4)
    carried = point_ops.interpolate_features(points, centers, centers)
    assert carried.shape == points.shape


def test_padding_is_in_no_ball_and_is_never_picked():
    points = clouds(2, 60)
    counts = (60, 25)
    padding = torch.arange(60) >= torch.tensor(counts)[:, None]
    # What stands there means nothing.
    points[padding] = torch.nan
    far_from_all = torch.full((2, 1, 3), 100.0)
    centers = torch.cat((points[:, :9], far_from_all), dim=1)
    found = point_ops.ball_query(points, centers, 4.0, 8, padding)
    assert torch.equal(found, balls_by_hand(points, centers, 4.0, 8, counts))
    picks = point_ops.farthest_point_sample(points, 20, padding)
    for i, count in enumerate(counts):
        alone = point_ops.farthest_point_sample(points[i : i + 1, :count], 20)
        assert torch.equal(picks[i : i + 1], alone)


@pytest.mark.parametrize('count', [1, 2, 7])
def test_features_are_interpolated_by_inverse_distance(count):
    targets = torch.randn(2, 9, 3)
    sources = torch.randn(2, count, 3)
    features = torch.randn(2, count, 5, requires_grad=True)
    found = point_ops.interpolate_features(targets, sources, features)
    distances = (targets[:, :, None] - sources[:, None]).norm(dim=-1)
    third = distances.sort(dim=-1).values[..., :3].amax(-1, keepdim=True)
    is_near = distances <= third
    weights = is_near / (distances + 1e-8)
    expected = weights @ features / weights.sum(-1, keepdim=True)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    found.sum().backward()
    assert features.grad.sum() == pytest.approx(2 * 9 * 5, rel=1e-4)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_gpu_gives_the_same():
    points = torch.rand(2, 500, 3)
    features = torch.randn(2, 50, 4)
    padding = torch.arange(500) >= torch.tensor([[500], [300]])

    def results(points, features, padding):
        some = points[:, :50]
        yield point_ops.ball_query(points, some, 0.2, 16, padding).cpu()
        yield point_ops.nearest_neighbors(points, some[:, :5], 3).cpu()
        yield point_ops.interpolate_features(points, some, features).cpu()

    found = [*results(points.cuda(), features.cuda(), padding.cuda())]
    expected = [*results(points, features, padding)]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
