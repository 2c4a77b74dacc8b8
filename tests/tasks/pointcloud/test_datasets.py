"""Each published layout is read, and missing data named; transforms of clouds."""

import h5py
import numpy as np
import pytest
import torch

from lm4ve.errors import UserError
from lm4ve.tasks import pointcloud as pc
from tests.helpers.pointcloud import clouds as c


def test_scanobjectnn_by_variant(tmp_path):
    c.write_scanobjectnn(tmp_path)
    path = tmp_path / 'main_split_nobg/test_objectdataset.h5'
    with h5py.File(path, 'a') as f:
        f['data'][2] = 9.0
    for variant in pc.ScanObjectNN.VARIANTS:
        data = pc.ScanObjectNN(str(tmp_path), 'test', variant)
        assert len(data) == 15 and len(data.metainfo['classes']) == 15
        sample = data[2]
        assert sample['gt_label'] == 2
        expected = 9.0 if variant == 'objectonly' else c.cloud(64, 2)
        assert (sample['points'] == expected).all()
    # A caller may change a sample.
    data[2]['points'][:] = 0
    assert data[2]['points'].any()


def test_modelnet40_text_comes_in_farthest_point_order(tmp_path):
    c.write_modelnet40_text(tmp_path)
    data = pc.ModelNet40(str(tmp_path), 'train', num_points=20)
    assert [d['gt_label'] for d in data] == [0, 0, 23, 23]
    points = data[3]['points']
    everything = np.loadtxt(
        tmp_path / 'night_stand/night_stand_0002.txt', delimiter=','
    )[:, :3]
    picks = pc.SamplePoints(20, 'fps')(dict(points=everything.astype('f4')))['points']
    assert np.allclose(points, picks, atol=1e-5)


def test_modelnet40_is_cached(tmp_path):
    c.write_modelnet40_text(tmp_path)
    first = pc.ModelNet40(str(tmp_path), 'test', num_points=20)[0]['points']
    for path in tmp_path.glob('*/*.txt'):  # same sizes, other content
        path.write_bytes(b'0' * path.stat().st_size)
    again = pc.ModelNet40(str(tmp_path), 'test', num_points=20)
    assert np.array_equal(first, again[0]['points'])
    (cache,) = (tmp_path / 'lm4ve_cache').glob('*.npy')
    cache.write_bytes(cache.read_bytes()[:90])
    with pytest.raises(ValueError):
        again.load_data_list()


def test_modelnet40_meshes_with_whole_and_glued_headers(tmp_path):
    c.write_modelnet40_meshes(tmp_path)
    data = pc.ModelNet40(str(tmp_path), num_points=64, num_samples=200)
    assert [d['gt_label'] for d in data] == [0, 39]
    for sample in data:
        x = sample['points']
        # On the surface of the unit tetrahedron: a face of it, or the slope.
        assert (np.abs(np.c_[x, 1 - x.sum(1)]).min(1) < 1e-5).all()
        assert len(np.unique(x, axis=0)) == 64


@pytest.mark.parametrize('layout', ['arrays', 'meshes'])
def test_shapenet_labels_agree_between_splits(layout, tmp_path):
    models = [('02691156', 'a-1'), ('03001627', 'b'), ('02691156', 'c')]
    for synset, name in models:
        if layout == 'arrays':
            c.write_cloud(tmp_path / f'shapenet_pc/{synset}-{name}.npy', c.cloud(30))
        else:
            path = tmp_path / synset / name / 'models/model_normalized.off'
            path.parent.mkdir(parents=True)
            path.write_text('OFF\n' + c.TETRAHEDRON)
    assert [d['gt_label'] for d in pc.ShapeNet(str(tmp_path))] == [0, 0, 1]
    (tmp_path / 'test.txt').write_text('03001627-b.npy\n')
    (test,) = pc.ShapeNet(str(tmp_path), 'test', num_samples=30)
    assert test['gt_label'] == 1 and test['points'].shape == (30, 3)
    (tmp_path / 'test.txt').write_text('03001627-x\n')
    with pytest.raises(UserError, match='lacks models.*03001627-x'):
        len(pc.ShapeNet(str(tmp_path), 'test'))


def test_a_folder_of_every_format(tmp_path):
    bird, car = tmp_path / 'train/bird', tmp_path / 'train/car'
    car.mkdir(parents=True)
    for ending in ('npy', 'pcd', 'ply', 'xyz'):
        c.write_cloud(bird / f'a.{ending}', c.cloud(40))
    for ending in ('ply', 'off', 'obj', 'stl'):
        c.write_mesh(car / f'b.{ending}')
    (car / 'notes.md').write_text('no cloud')
    data = pc.PointCloudFolder(str(tmp_path), num_samples=64)
    assert data.metainfo['classes'] == ('bird', 'car')
    assert [d['gt_label'] for d in data] == [0] * 4 + [1] * 4
    for sample in list(data)[:4]:
        assert np.allclose(sample['points'], c.cloud(40), atol=1e-5), sample['path']
    for i in range(4, 8):
        assert data[i]['points'].shape == (64, 3), data[i]['path']
        assert np.array_equal(
            data[i]['points'], data[i]['points']
        )  # the same every time


def test_cloud_with_points_that_are_not_finite_is_damaged(tmp_path):
    points = c.cloud(10)
    points[[3, 7], [1, 0]] = np.nan, np.inf
    c.write_cloud(tmp_path / 'train/x/a.npy', points)
    c.write_cloud(tmp_path / 'train/x/b.npy', c.cloud(10))
    data = pc.PointCloudFolder(str(tmp_path))
    assert np.array_equal(data[0]['points'], c.cloud(10))
    with pytest.raises(UserError, match='a.npy.*2 of 10 points'):
        pc.PointCloudFolder(str(tmp_path), test_mode=True)


def test_points_that_a_sensor_did_not_see_are_no_points_of_a_pcd(tmp_path):
    points = c.cloud(10)
    points[[3, 7]] = np.nan
    c.write_cloud(tmp_path / 'train/x/a.pcd', points)
    (sample,) = pc.PointCloudFolder(str(tmp_path), test_mode=True)
    assert np.array_equal(sample['points'], np.delete(points, (3, 7), axis=0))


def test_modelnet40_replaces_a_shape_that_was_damaged_when_the_cache_was_made(tmp_path):
    c.write_modelnet40_text(tmp_path)
    (first, *_) = sorted(tmp_path.glob('airplane/*.txt'))
    whole = first.read_bytes()
    first.write_bytes(b'0' * len(whole))
    for _ in range(2):  # makes the cache, and reads it
        data = pc.ModelNet40(str(tmp_path), num_points=20)
        assert np.isfinite([sample['points'] for sample in data]).all()
        with pytest.raises(UserError, match=f"1 of 4 clouds are corrupt: '{first}"):
            pc.ModelNet40(str(tmp_path), num_points=20, test_mode=True)
    first.write_bytes(whole)
    with pytest.raises(UserError, match='was damaged when .* Fix: remove them'):
        pc.ModelNet40(str(tmp_path), num_points=20)


@pytest.mark.parametrize(
    'kind', ['ScanObjectNN', 'ModelNet40', 'ShapeNet', 'PointCloudFolder']
)
def test_folders_without_the_data_are_refused(kind, tmp_path):
    with pytest.raises(UserError, match=str(tmp_path)):
        len(getattr(pc, kind)(str(tmp_path)))


def run(transform, points):
    before = points.copy()
    out = transform(dict(points=points, gt_label=1, sample_idx=0))['points']
    assert np.array_equal(points, before), 'its input was changed'
    assert out.dtype == np.float32
    return out


def test_unit_sphere():
    out = run(pc.NormalizeToUnitSphere(), c.cloud(50) * 7 + 3)
    assert np.allclose(out.mean(0), 0, atol=1e-5)
    assert np.linalg.norm(out, axis=1).max() == pytest.approx(1, abs=1e-5)
    same = np.full((9, 3), 4, 'f4')
    assert not run(pc.NormalizeToUnitSphere(), same).any()


def test_sampling_takes_points_of_the_cloud():
    # Whole coordinates: distances are exact.
    points = np.random.default_rng(0).integers(-999, 999, (40, 3)).astype('f4')
    picks = run(pc.SamplePoints(12, 'fps'), points)
    assert np.array_equal(picks, points[c.brute_force_picks(points, 12)])
    assert np.array_equal(run(pc.SamplePoints(12, 'first'), points), points[:12])
    drawn = run(pc.SamplePoints(12, 'random'), points)
    assert len({tuple(p) for p in drawn}) == 12
    assert {tuple(p) for p in drawn} <= {tuple(p) for p in points}
    assert not np.array_equal(drawn, run(pc.SamplePoints(12), points))


@pytest.mark.parametrize('method', ['fps', 'random', 'first'])
def test_small_clouds_are_filled_up_evenly_or_kept(method):
    points = c.cloud(5)
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
    points = c.cloud(30)
    out = run(pc.RandomRotate(group), points)
    assert np.allclose(out @ out.T, points @ points.T, atol=1e-4)
    assert np.allclose(out[:, 2], points[:, 2]) == (group == 'z')


def test_dropout_keeps_the_number_of_points():
    points = c.cloud(200)
    out = run(pc.RandomPointDropout(0.9), points)
    assert 0 < (out == points).all(1).sum() < 200 == len(out)


def test_draws_of_a_vote_differ_and_repeat():
    steps = [
        dict(type='lm4ve.SamplePoints', num=8),
        dict(type='lm4ve.RandomScaleTranslate'),
    ]
    steps.append(dict(type='lm4ve.PackPointCloud'))

    def draws(index, seed=0):
        np.random.seed(index)  # whatever a worker's generator is at
        before = np.random.get_state()[1].tolist()
        sample = dict(points=c.cloud(30), gt_label=1, sample_idx=index)
        out = pc.RepeatDraws(steps, num=4, seed=seed)(sample)
        assert np.random.get_state()[1].tolist() == before
        return torch.stack(out['inputs'])

    first = draws(5)
    assert first.shape == (4, 8, 3)
    assert len({tuple(d.flatten().tolist()) for d in first}) == 4
    assert torch.equal(first, draws(5))
    assert not torch.equal(first, draws(6))
    assert not torch.equal(first, draws(5, seed=1))
