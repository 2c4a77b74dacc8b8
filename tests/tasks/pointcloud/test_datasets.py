"""Each published layout is read; what is wrong with a file is said."""

import h5py
import numpy as np
import open3d as o3d
import pytest

from lm4ve.errors import UserError
from lm4ve.tasks import pointcloud as pc
from lm4ve.tasks.pointcloud.datasets.readers import read_points
from tests.tasks.pointcloud.clouds import (
    TETRAHEDRON,
    cloud,
    write_modelnet40_meshes,
    write_modelnet40_text,
    write_scanobjectnn,
)


def test_scanobjectnn_by_variant(tmp_path):
    write_scanobjectnn(tmp_path)
    path = tmp_path / 'main_split_nobg/test_objectdataset.h5'
    with h5py.File(path, 'a') as f:
        f['data'][2] = 9.0
    for variant in pc.ScanObjectNN.VARIANTS:
        data = pc.ScanObjectNN(str(tmp_path), 'test', variant)
        assert len(data) == 15 and len(data.metainfo['classes']) == 15
        sample = data[2]
        assert sample['gt_label'] == 2
        expected = 9.0 if variant == 'objectonly' else cloud(64, 2)
        assert (sample['points'] == expected).all()
    # A sample is the caller's to change.
    data[2]['points'][:] = 0
    assert data[2]['points'].any()


def test_modelnet40_text_comes_in_farthest_point_order(tmp_path):
    write_modelnet40_text(tmp_path)
    data = pc.ModelNet40(str(tmp_path), 'train', num_points=20)
    assert [d['gt_label'] for d in data] == [0, 0, 23, 23]
    points = data[3]['points']
    everything = np.loadtxt(tmp_path / 'night_stand/night_stand_0002.txt', delimiter=',')[:, :3]
    picks = pc.SamplePoints(20, 'fps')(dict(points=everything.astype('f4')))['points']
    assert np.allclose(points, picks, atol=1e-5)
    assert len(pc.ModelNet40(str(tmp_path), 'test', num_points=20)) == 2


def test_modelnet40_is_read_once(tmp_path):
    write_modelnet40_text(tmp_path)
    first = pc.ModelNet40(str(tmp_path), 'test', num_points=20)[0]['points']
    for path in tmp_path.glob('*/*.txt'):  # same sizes, other content
        path.write_bytes(b'0' * path.stat().st_size)
    again = pc.ModelNet40(str(tmp_path), 'test', num_points=20)[0]['points']
    assert np.array_equal(first, again)
    (cache,) = (tmp_path / 'lm4ve_cache').glob('*.npy')
    cache.write_bytes(cache.read_bytes()[:90])
    with pytest.raises(UserError, match='cache.*damaged.*delete it'):
        pc.ModelNet40(str(tmp_path), 'test', num_points=20)


def test_modelnet40_meshes_with_whole_and_glued_headers(tmp_path):
    write_modelnet40_meshes(tmp_path)
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
            path = tmp_path / f'shapenet_pc/{synset}-{name}.npy'
            path.parent.mkdir(exist_ok=True)
            np.save(path, cloud(30))
        else:
            path = tmp_path / synset / name / 'models/model_normalized.off'
            path.parent.mkdir(parents=True)
            path.write_text('OFF\n' + TETRAHEDRON)
    assert [d['gt_label'] for d in pc.ShapeNet(str(tmp_path))] == [0, 0, 1]
    (tmp_path / 'test.txt').write_text('03001627-b.npy\n')
    (test,) = pc.ShapeNet(str(tmp_path), 'test', num_samples=30)
    assert test['gt_label'] == 1 and test['points'].shape == (30, 3)
    (tmp_path / 'test.txt').write_text('03001627-x\n')
    with pytest.raises(UserError, match='not in .*03001627-x'):
        len(pc.ShapeNet(str(tmp_path), 'test'))


def test_a_folder_of_every_format(tmp_path):
    points = cloud(40)
    mesh = o3d.geometry.TriangleMesh.create_box()
    mesh.compute_triangle_normals()
    as_cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(points.astype('f8')))
    for name in ('bird', 'car'):
        (tmp_path / 'train' / name).mkdir(parents=True)
    bird, car = tmp_path / 'train/bird', tmp_path / 'train/car'
    for ending in ('ply', 'pcd', 'xyz'):
        o3d.io.write_point_cloud(str(bird / f'a.{ending}'), as_cloud)
    np.save(bird / 'a.npy', np.c_[points, points])
    for ending in ('ply', 'off', 'obj', 'stl'):
        o3d.io.write_triangle_mesh(str(car / f'b.{ending}'), mesh)
    (car / 'notes.md').write_text('no cloud')
    data = pc.PointCloudFolder(str(tmp_path), num_samples=64)
    assert data.metainfo['classes'] == ('bird', 'car')
    assert [d['gt_label'] for d in data] == [0] * 4 + [1] * 4
    for sample in list(data)[:4]:
        assert np.allclose(sample['points'], points, atol=1e-5), sample['path']
    for i in range(4, 8):
        x = data[i]['points']
        assert x.shape == (64, 3), data[i]['path']
        assert (np.minimum(np.abs(x), np.abs(1 - x)).min(1) < 1e-5).all()
        assert np.array_equal(x, data[i]['points'])  # the same every time
    only = pc.PointCloudFolder(str(tmp_path), metainfo=dict(classes=('car',)))
    assert {d['gt_label'] for d in only} == {0} and len(only) == 4


# ------------------------------------------------------------ what goes wrong
def test_points_that_are_no_numbers(tmp_path):
    (tmp_path / 'train/x').mkdir(parents=True)
    points = cloud(10)
    points[3, 1] = np.nan
    points[7, 0] = np.inf
    np.save(tmp_path / 'train/x/a.npy', points)
    kept = pc.PointCloudFolder(str(tmp_path))[0]['points']
    assert np.array_equal(kept, np.delete(points, (3, 7), axis=0))
    with pytest.raises(UserError, match='a.npy.*2 of 10 points'):
        pc.PointCloudFolder(str(tmp_path), on_corrupt='refuse')[0]
    np.save(tmp_path / 'train/x/a.npy', points * np.nan)
    with pytest.raises(UserError, match='10 of 10 points'):
        pc.PointCloudFolder(str(tmp_path))[0]


def test_the_old_name_of_on_corrupt_works_and_names_the_new_one(tmp_path):
    write_scanobjectnn(tmp_path)
    with pytest.warns(DeprecationWarning, match="on_corrupt='skip'"):
        data = pc.ScanObjectNN(str(tmp_path), on_nonfinite='drop')
    assert data.on_corrupt == 'skip'


@pytest.mark.parametrize(
    'name, content, found',
    [
        ('a.ply', b'', 'is empty'),
        ('a.npy', b'', 'is empty'),
        ('a.npy', b'\x93NUMPY', 'no array'),
        ('a.pcd', b'# nothing\n', 'has no points'),
        ('a.off', b'OFF\n0 0 0\n', 'has no points'),
        ('a.obj', b'# nothing\n', 'has no points'),
        ('a.txt', b'1,2\n', '2 column'),
        ('a.txt', b'one,two,three\n', 'no table of numbers'),
        ('a.laz', b'x', "ends in '.laz'"),
        ('a.off', b'OFF\n3 1 0\n0 0 0\n1 1 1\n2 2 2\n3 0 1 2\n', 'no area'),
    ],
)
def test_files_without_points(name, content, found, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=found) as e:
        read_points(tmp_path / name)
    assert name in str(e.value)


def test_arrays_are_never_unpickled(tmp_path):
    np.save(tmp_path / 'a.npy', np.array([{}], dtype=object))
    with pytest.raises(UserError, match='read safely'):
        read_points(tmp_path / 'a.npy')
    np.save(tmp_path / 'a.npy', np.zeros((3, 2)))
    with pytest.raises(UserError, match=r'float64 \[3, 2\]'):
        read_points(tmp_path / 'a.npy')


def _h5(root, **arrays):
    path = write_scanobjectnn(root) / 'main_split/test_objectdataset.h5'
    with h5py.File(path, 'w') as f:
        for key, value in arrays.items():
            f[key] = value


@pytest.mark.parametrize(
    'arrays, found',
    [
        (
            dict(points=np.zeros((2, 4, 3)), label=[0, 1]),
            'keys label, points, expected data and label',
        ),
        (dict(data=np.zeros((2, 4, 3)), label=[0]), '1 labels'),
        (dict(data=np.zeros((0, 4, 3)), label=[]), 'above 0'),
        (dict(data=np.zeros((2, 12)), label=[0, 1]), r'data \[2, 12\]'),
        (dict(data=np.zeros((2, 4, 3)), label=[0, 39]), '0 to 39, expected 0 to 14'),
    ],
)
def test_h5_files_with_other_content(arrays, found, tmp_path):
    _h5(tmp_path, **arrays)
    with pytest.raises(UserError, match=found):
        len(pc.ScanObjectNN(str(tmp_path), 'test', 'objectbg'))


def test_h5_files_with_changed_bytes_end_in_one_message(tmp_path):
    path = write_scanobjectnn(tmp_path) / 'main_split/test_objectdataset.h5'
    whole, rng, refused = path.read_bytes(), np.random.default_rng(0), 0
    for _ in range(150):
        data = bytearray(whole)
        for at in rng.integers(0, 3000, 3):
            data[at] = rng.integers(256)
        path.write_bytes(data)
        try:
            len(pc.ScanObjectNN(str(tmp_path), 'test', 'objectbg'))
        except UserError:
            refused += 1
    assert refused > 10


def test_h5_files_that_are_cut_or_missing(tmp_path):
    write_scanobjectnn(tmp_path)
    path = tmp_path / 'main_split/test_objectdataset.h5'
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match='no whole h5 file'):
        len(pc.ScanObjectNN(str(tmp_path), 'test', 'objectbg'))
    path.unlink()
    with pytest.raises(UserError, match='does not exist'):
        len(pc.ScanObjectNN(str(tmp_path), 'test', 'objectbg'))


@pytest.mark.parametrize(
    'make, found',
    [
        (lambda root: pc.ScanObjectNN('nowhere'), 'data_root=.nowhere'),
        (lambda root: pc.ScanObjectNN(root, 'val'), "split='val'"),
        (lambda root: pc.ScanObjectNN(root, variant='easy'), "variant='easy'"),
        (lambda root: pc.ModelNet40(root), 'neither modelnet40_train.txt'),
        (lambda root: pc.ShapeNet(root), 'neither shapenet_pc'),
        (lambda root: pc.PointCloudFolder(root), 'one a class'),
        (lambda root: pc.PointCloudFolder(root, metainfo=dict(classes=('cat',))), 'expected cat'),
        (lambda root: pc.ScanObjectNN(root, on_corrupt='keep'), "'keep'"),
    ],
)
def test_folders_without_the_data(make, found, tmp_path):
    with pytest.raises(UserError, match=found):
        len(make(str(tmp_path)))


def test_a_class_folder_without_clouds_and_a_small_shape(tmp_path):
    (tmp_path / 'train/empty').mkdir(parents=True)
    with pytest.raises(UserError, match='without a file.*empty'):
        len(pc.PointCloudFolder(str(tmp_path)))
    write_modelnet40_text(tmp_path / 'm', points=9)
    with pytest.raises(UserError, match='9 points, expected at least'):
        len(pc.ModelNet40(str(tmp_path / 'm'), num_points=10))
    (tmp_path / 'm/airplane/airplane_0001.txt').unlink()
    with pytest.raises(UserError, match='listed but does not exist'):
        len(pc.ModelNet40(str(tmp_path / 'm'), num_points=9))
