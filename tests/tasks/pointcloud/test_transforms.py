"""What each transform does to a cloud, and what it leaves."""

import numpy as np
import pytest
import torch

from lm4ve.tasks import pointcloud as pc
from tests.tasks.pointcloud.clouds import brute_force_picks, cloud, whole_cloud


def run(transform, points):
    before = points.copy()
    out = transform(dict(points=points, gt_label=1, sample_idx=0))['points']
    assert np.array_equal(points, before), 'its input was changed'
    assert out.dtype == np.float32
    return out


def test_unit_sphere():
    out = run(pc.NormalizeToUnitSphere(), cloud(50) * 7 + 3)
    assert np.allclose(out.mean(0), 0, atol=1e-5)
    assert np.linalg.norm(out, axis=1).max() == pytest.approx(1, abs=1e-5)
    same = np.full((9, 3), 4, 'f4')
    assert not run(pc.NormalizeToUnitSphere(), same).any()


def test_sampling_takes_points_of_the_cloud():
    points = whole_cloud()
    picks = run(pc.SamplePoints(12, 'fps'), points)
    assert np.array_equal(picks, points[brute_force_picks(points, 12)])
    assert np.array_equal(run(pc.SamplePoints(12, 'first'), points), points[:12])
    drawn = run(pc.SamplePoints(12, 'random'), points)
    assert len({tuple(p) for p in drawn}) == 12
    assert {tuple(p) for p in drawn} <= {tuple(p) for p in points}
    assert not np.array_equal(drawn, run(pc.SamplePoints(12), points))


@pytest.mark.parametrize('method', ['fps', 'random', 'first'])
def test_small_clouds_are_filled_up_evenly_or_kept(method):
    points = cloud(5)
    out = run(pc.SamplePoints(12, method), points)
    counts = [(out == p).all(1).sum() for p in points]
    assert sorted(counts) == [2, 2, 2, 3, 3]
    kept = run(pc.SamplePoints(12, method, fill=False), points)
    assert np.array_equal(kept, points)


def test_scale_and_shift_stay_in_range():
    points = np.float32([[0, 0, 0], [1, 1, 1]])
    draws = [run(pc.RandomScaleTranslate(), points) for _ in range(200)]
    shift, scale = np.array([(d[0], d[1] - d[0]) for d in draws]).swapaxes(0, 1)
    assert 0.08 < shift.std(0).min() and np.abs(shift).max() <= 0.2
    assert 2 / 3 - 1e-6 <= scale.min() and scale.max() <= 1.5 + 1e-6
    assert not np.allclose(scale[:, 0], scale[:, 1])


@pytest.mark.parametrize('group', ['z', 'so3'])
def test_rotations_about_z_keep_z_and_so3_does_not(group):
    points = cloud(30)
    out = run(pc.RandomRotate(group), points)
    assert np.allclose(out @ out.T, points @ points.T, atol=1e-4)
    assert np.allclose(out[:, 2], points[:, 2]) == (group == 'z')


def test_dropout_keeps_the_number_of_points():
    points = cloud(200)
    out = run(pc.RandomPointDropout(0.9), points)
    assert 0 < (out == points).all(1).sum() < 200 == len(out)


def test_draws_of_a_vote_differ_and_repeat():
    steps = [
        dict(type='lm4ve.SamplePoints', num=8),
        dict(type='lm4ve.RandomScaleTranslate'),
        dict(type='lm4ve.PackPointCloud'),
    ]

    def draws(index, seed=0):
        np.random.seed(index)  # whatever a worker's generator is at
        before = np.random.get_state()[1].tolist()
        out = pc.RepeatDraws(steps, num=4, seed=seed)(
            dict(points=cloud(30), gt_label=1, sample_idx=index)
        )
        assert np.random.get_state()[1].tolist() == before
        return torch.stack(out['inputs'])

    first = draws(5)
    assert first.shape == (4, 8, 3)
    assert len({tuple(d.flatten().tolist()) for d in first}) == 4
    assert torch.equal(first, draws(5))
    assert not torch.equal(first, draws(6))
    assert not torch.equal(first, draws(5, seed=1))
