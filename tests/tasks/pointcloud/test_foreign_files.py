"""Numbers come from the files of a data set, never from what these name elsewhere."""

import re

import h5py
import numpy as np
import pytest

from lm4ve.errors import UserError
from lm4ve.tasks import pointcloud as pc
from lm4ve.tasks.pointcloud.datasets.readers import read_points
from tests.tasks.pointcloud.clouds import write_modelnet40_text, write_scanobjectnn

SHAPE = (2, 4, 3)


def external_link(f, other) -> None:
    with h5py.File(other, 'w') as o:
        o['data'] = np.ones(SHAPE)
    f['data'] = h5py.ExternalLink(str(other), '/data')


def soft_link_to_an_external_one(f, other) -> None:
    external_link(f, other)
    f.move('data', 'there')
    f['data'] = h5py.SoftLink('/there')


def external_storage(f, other) -> None:
    other.write_bytes(b'root:x:0:0:secret' * 99)
    f.create_dataset('data', SHAPE, 'f4', external=[(str(other), 0, 4 * 24)])


def virtual(f, other) -> None:
    external_link(f, other)
    del f['data']
    layout = h5py.VirtualLayout(SHAPE, 'f8')
    layout[:] = h5py.VirtualSource(str(other), 'data', SHAPE)
    f.create_virtual_dataset('data', layout)


def huge(f, other) -> None:
    f.create_dataset('data', (10**9, 1000, 3), 'f4', chunks=(1, 1000, 3))


def huge_labels(f, other) -> None:
    f['data'] = np.ones(SHAPE)
    del f['label']
    f.create_dataset('label', (10**12,), 'i8', chunks=(1000,))


def half_stored(f, other) -> None:
    f.create_dataset('data', (2000, 4, 3), 'f4', chunks=(1, 4, 3))[0] = 1


def group(f, other) -> None:
    f.create_group('data')


def text(f, other) -> None:
    f['data'] = 'secret'


WAYS = {
    external_link: 'a link',
    soft_link_to_an_external_one: 'a link',
    external_storage: 'from another file',
    virtual: 'from another file',
    huge: 'cut or made up',
    huge_labels: 'cut or made up',
    half_stored: 'cut or made up',
    group: 'no numbers',
    text: 'no numbers',
}


@pytest.mark.parametrize('way', WAYS)
def test_h5_files_hold_all_of_their_numbers(tmp_path, way):
    path = write_scanobjectnn(tmp_path) / 'main_split/test_objectdataset.h5'
    with h5py.File(path, 'w') as f:
        f['label'] = [0, 1]
        way(f, tmp_path / 'other')
    with pytest.raises(UserError, match=f"'{re.escape(str(path))}' .*{WAYS[way]}.*Fix") as e:
        len(pc.ScanObjectNN(str(tmp_path), 'test', 'objectbg'))
    assert 'secret' not in str(e.value)


def test_compressed_h5_files_are_read(tmp_path):
    path = write_scanobjectnn(tmp_path) / 'main_split/test_objectdataset.h5'
    points = np.random.default_rng(0).normal(size=(15, 64, 3)).astype('f4')
    with h5py.File(path, 'w') as f:
        f.create_dataset('data', data=points, compression='gzip', shuffle=True)
        f['label'] = np.arange(15)
    data = pc.ScanObjectNN(str(tmp_path), 'test', 'objectbg')
    assert np.array_equal(data[3]['points'], points[3])


@pytest.mark.parametrize('shape', ['(1000000000000, 3)', '(-3, 3)', '(' * 900 + '3,' + ')' * 900])
def test_arrays_of_huge_shapes(tmp_path, shape):
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + '\n'
    head = b'\x93NUMPY\x01\x00' + len(header).to_bytes(2, 'little')
    (tmp_path / 'a.npy').write_bytes(head + header.encode() + bytes(48))
    with pytest.raises(UserError, match='read safely'):
        read_points(tmp_path / 'a.npy')


def test_an_archive_of_arrays_is_none(tmp_path):
    np.savez(tmp_path / 'a.npz', a=np.ones((4, 3)))
    (tmp_path / 'a.npz').rename(tmp_path / 'a.npy')
    with pytest.raises(UserError, match='an archive'):
        read_points(tmp_path / 'a.npy')


def test_a_list_does_not_lead_out_of_its_class_folders(tmp_path):
    write_modelnet40_text(tmp_path)
    (tmp_path / 'airplane/airplane_..').mkdir()
    (tmp_path / 'modelnet40_train.txt').write_text('airplane_../../../other\n')
    (tmp_path.parent / 'other.txt').write_text('1,2,3\n' * 40)
    with pytest.raises(UserError, match='outside of its class folder'):
        len(pc.ModelNet40(str(tmp_path), 'train', num_points=20))


@pytest.mark.parametrize('ending', ['txt', 'xyz', 'pcd', 'ply', 'off', 'obj', 'stl', 'npy'])
def test_messages_show_none_of_a_files_bytes(tmp_path, ending):
    path = tmp_path / f'a.{ending}'
    path.write_text('root:x:0:0:secret\n' * 9)
    with pytest.raises(UserError) as e:
        read_points(path)
    assert 'secret' not in str(e.value) and 'x:0' not in str(e.value)
