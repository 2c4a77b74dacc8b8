"""Files of points: read whole or refused, and never code or other files."""

import os

import h5py
import numpy as np
import pytest

from lm4ve.errors import UserError
from lm4ve.geometry.mesh_files import read_mesh
from lm4ve.geometry.surfaces import sample_surface
from lm4ve.tasks import pointcloud as pc
from lm4ve.tasks.pointcloud.datasets.readers import read_points
from tests.helpers.pointcloud import clouds as c

MESHES = [(kind, text) for kind in ('ply', 'stl') for text in (True, False)]
MESHES += [('off', True), ('obj', True)]
CLOUDS = [('ply', True, False), ('ply', False, False), ('pcd', True, False)]
CLOUDS += [('pcd', False, False), ('pcd', False, True)]


def refuses_every_cut(path):
    """Cut the file at 40 places, the last byte and the last line among them."""
    whole = path.read_bytes()
    last_line = whole.rstrip(b'\n').rfind(b'\n') + 1
    for at in {*np.linspace(1, len(whole) - 1, 38).astype(int), last_line}:
        path.write_bytes(whole[:at])
        with pytest.raises(UserError, match=path.name):
            print(at, len(whole), read_points(path, 10))


@pytest.mark.parametrize('kind, text', MESHES)
def test_meshes_are_sampled_and_cut_ones_refused(kind, text, tmp_path):
    path = tmp_path / f'a.{kind}'
    mesh = c.write_mesh(path, text)
    assert np.allclose(
        read_points(path, 500, seed=3), sample_surface(mesh, 500, 3), atol=1e-5
    )
    refuses_every_cut(path)


@pytest.mark.parametrize('kind, text, packed', CLOUDS)
def test_clouds_are_read_and_cut_ones_refused(kind, text, packed, tmp_path):
    points = np.repeat(c.cloud(40), 2, axis=0)  # repeats: something to compress
    path = c.write_cloud(tmp_path / f'a.{kind}', points, text, packed)
    assert np.allclose(read_points(path), points, atol=1e-5)
    refuses_every_cut(path)


PLY = (
    'ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\n'
    'property float z\nelement face 1\nproperty list uchar int vertex_indices\n'
    'end_header\n0 0 0\n1 0 0\n0 1 0\n3 0 1 {}\n'
)


BINARY_PLY = (
    b'ply\nformat binary_little_endian 1.0\nelement vertex 4\nproperty float x\nproperty float y\n'
    b'property float z\nelement face 2\nproperty list uchar int vertex_indices\nend_header\n'
)


def write_square(path, corners, binary):
    """Write the corners of a square, a triangle on three of them, and another face."""
    square = np.float32([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    faces = [[0, 1, 2], corners]
    if binary:
        rows = [bytes([len(face)]) + np.int32(face).tobytes() for face in faces]
        path.write_bytes(BINARY_PLY + square.tobytes() + b''.join(rows))
    else:
        rows = [' '.join(map(str, [len(face), *face])) for face in faces]
        places = [' '.join(map(str, place)) for place in square]
        head = BINARY_PLY.decode().replace('binary_little_endian', 'ascii')
        path.write_text(head + '\n'.join([*places, *rows, '']))
    return path


# open3d's own reader of .ply files ends the process, or reads each of these without a word.
@pytest.mark.parametrize('corners', [[0, 1, 2, 9], [0, 1, 2, -2]], ids=str)
@pytest.mark.parametrize('binary', [False, True])
def test_corners_that_do_not_exist_are_refused(corners, binary, tmp_path):
    path = write_square(tmp_path / 'a.ply', corners, binary)
    with pytest.raises(UserError, match='a.ply.*face'):
        read_points(path)


@pytest.mark.parametrize('binary', [False, True])
def test_a_face_without_corners_is_no_surface(binary, tmp_path):
    points = read_points(write_square(tmp_path / 'a.ply', [], binary))
    # On the triangle alone.
    assert (points[:, 1] <= points[:, 0] + 1e-6).all()


@pytest.mark.parametrize('binary', [False, True])
def test_a_corner_that_is_repeated_changes_no_surface(binary, tmp_path):
    mesh = read_mesh(write_square(tmp_path / 'a.ply', [0, 2, 2, 3], binary))
    assert mesh.get_surface_area() == pytest.approx(1)


TEXTS = [
    'mesh.off',
    'mesh.obj',
    'mesh.stl',
    'mesh.ply',
    'cloud.ply',
    'cloud.pcd',
    'cloud.xyz',
]


@pytest.mark.parametrize('name', TEXTS)
def test_messages_show_nothing_of_a_file(name, tmp_path):
    path = tmp_path / name
    if name.startswith('mesh'):
        c.write_mesh(path)
    else:
        c.write_cloud(path, c.cloud(20), text=True)
    lines = path.read_text().splitlines()
    rng = np.random.default_rng(0)
    for at in rng.choice(len(lines), min(len(lines), 25), replace=False):
        words = lines[at].split()
        words[rng.integers(len(words))] = 'xSECRETx'
        path.write_text('\n'.join([*lines[:at], ' '.join(words), *lines[at + 1 :], '']))
        try:
            read_points(path, 10)  # a comment may hold any word
        except UserError as e:
            assert 'SECRET' not in str(e)
            assert len(str(e).splitlines()) == 1


def test_meshes_open_no_file_that_they_name(tmp_path):
    """A material of an .obj file names pictures; a pipe among them would never end."""
    os.mkfifo(tmp_path / 'pipe.png')
    (tmp_path / 'a.mtl').write_text('newmtl m\nmap_Kd pipe.png\n')
    triangle = 'v 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\n'
    (tmp_path / 'a.obj').write_text(
        f'mtllib a.mtl\n{triangle}usemtl m\nf 1/1 2/1 3/1\n'
    )
    assert read_points(tmp_path / 'a.obj', 30).shape == (30, 3)


def test_polygons_without_area_are_left_out(tmp_path):
    places = '0 0 0\n1 0 0\n1 1 0\n0 1 0\n2 0 0\n3 0 0\n'
    faces = '4 0 1 2 3\n4 0 1 4 5\n2 0 1\n0\n'
    (tmp_path / 'a.off').write_text(f'OFF\n6 4 0\n{places}{faces}')
    points = read_points(tmp_path / 'a.off', 400)
    assert points[:, :2].min() >= 0 and points[:, :2].max() <= 1


def test_polygons_are_triangulated(tmp_path):
    # A square of two units, and a U of eight corners and area 5.
    (tmp_path / 'a.obj').write_text(
        'v 10 0 0\nv 12 0 0\nv 12 1 0\nv 10 1 0\n'
        'v 0 0 0\nv 3 0 0\nv 3 2 0\nv 2 2 0\nv 2 1 0\nv 1 1 0\nv 1 2 0\nv 0 2 0\n'
        'f 1/1/1 2/2/1 3/3/1 4/4/1\nf 5 6 7 8 9 10 11 12\n'
    )
    points = read_points(tmp_path / 'a.obj', 7000)
    square = points[:, 0] >= 10
    assert abs(square.sum() - 2000) < 150
    x, y = points[~square, 0], points[~square, 1]
    assert not ((x > 1.001) & (x < 1.999) & (y > 1.001)).any()  # the gap of the U
    assert {(int(a), int(b)) for a, b in zip(x, y, strict=True)} >= {
        (0, 0),
        (1, 0),
        (2, 1),
        (0, 1),
    }


@pytest.mark.parametrize('ending', ['xyz', 'txt', 'npy', 'ply'])
def test_map_coordinates_keep_their_shape(ending, tmp_path):
    shape = c.cloud(200).astype('f8')
    path = tmp_path / f'a.{ending}'
    c.write_cloud(path, shape + (4_123_456.7, 5_712_345.6, 120.0))
    points = read_points(path)
    assert np.allclose(points - points.mean(0), shape - shape.mean(0), atol=1e-5)
    # Where nothing is lost, nothing is moved.
    c.write_cloud(path, shape + 10)
    assert np.allclose(read_points(path), shape + 10, atol=1e-5)


PCD = 'FIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nWIDTH 9999999\nHEIGHT 1\n'


FILES = [
    ('a.npy', ''),
    ('a.pcd', PCD + 'POINTS 9999999\nDATA binary\n000'),
    ('a.pcd', PCD + 'POINTS 1\nDATA ascii\n1 2 3\n'),
    ('a.off', 'OFF\n3 1 0\n0 0 0\n1 1 1\n2 2 2\n3 0 1 2\n'),  # no area
    ('a.ply', PLY.replace('3 0 1 {}', '3 0 1 2\n9 9 9')),  # more than promised
    ('a.ply', PLY.replace('vertex 3', 'vertex 99999999999')),
    # Faces without their vertex.
    ('a.off', 'OFF\n' + c.TETRAHEDRON.replace('3 1 2 3', '3 1 2 4')),
    ('a.obj', f'v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\nf 1 2 {2**40}\n'),
    ('a.ply', PLY.format(-9)),
    ('a.txt', '1,2\n'),
    ('a.xyz', '0 0 0\n1 2 3.12'),
    ('a.txt', '0 1 2 3\n' * 3),  # [3, N]
    ('a.laz', 'x'),
]


@pytest.mark.parametrize('name, content', FILES)
def test_files_without_points_are_refused(name, content, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=name):
        read_points(tmp_path / name)


def test_arrays_are_never_unpickled(tmp_path):
    path = tmp_path / 'a.npy'
    np.save(path, np.array([{}], dtype=object))
    with pytest.raises(UserError, match='allow_pickle'):
        read_points(path)
    np.save(path, np.ones((3, 40)))
    with pytest.raises(UserError, match='3 rows of 40'):
        read_points(path)
    with open(path, 'wb') as f:
        np.savez(f, a=np.ones((4, 3)))
    with pytest.raises(UserError, match='one array'):
        read_points(path)
    for shape in ('(1000000000000, 3)', '(-3, 3)', '(' * 900 + '3,' + ')' * 900):
        header = (
            f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117)
            + '\n'
        )
        head = b'\x93NUMPY\x01\x00' + len(header).to_bytes(2, 'little')
        path.write_bytes(head + header.encode() + bytes(48))
        with pytest.raises(UserError, match='a.npy'):
            read_points(path)


# ------------------------------------------------------------------------ .h5 files
SHAPE = (2000, 4, 3)


def external_link(f, other) -> None:
    f['elsewhere'] = h5py.ExternalLink(str(other), '/data')
    f['data'] = h5py.SoftLink('/elsewhere')


def external_storage(f, other) -> None:
    other.write_bytes(bytes(4 * 24000))
    f.create_dataset('data', SHAPE, 'f4', external=[(str(other), 0, 4 * 24000)])


def virtual(f, other) -> None:
    layout = h5py.VirtualLayout(SHAPE, 'f8')
    layout[:] = h5py.VirtualSource(str(other), 'data', SHAPE)
    f.create_virtual_dataset('data', layout)


def half_stored(f, other) -> None:
    f.create_dataset('data', SHAPE, 'f4', chunks=(1, 4, 3))[0] = 1


H5_FILES = [
    (external_link, 'is a link'),
    (external_storage, 'in the file itself'),
    (virtual, 'in the file itself'),
    (half_stored, 'in the file itself'),
    (lambda f, _: f.create_group('data'), 'holds no numbers'),
    (lambda f, _: f.update(points=np.zeros(SHAPE)), 'data'),
    (lambda f, _: f.update(data=np.zeros((2, 12))), r'data \[2, 12\]'),
    (lambda f, _: f.update(data=np.zeros((3, 4, 3))), '2 labels'),
    (lambda f, _: f.update(data=np.zeros((2, 3, 40))), '3 rows of 40'),
]


@pytest.mark.parametrize('write, found', H5_FILES)
def test_h5_files_with_other_content_are_refused(write, found, tmp_path):
    path = c.write_scanobjectnn(tmp_path) / 'main_split/test_objectdataset.h5'
    with h5py.File(path, 'w') as f:
        f['label'] = [0, 39]
        write(f, tmp_path / 'other')
    with pytest.raises(UserError, match=found):
        len(pc.ScanObjectNN(str(tmp_path), 'test', 'objectbg'))


def test_compressed_h5_files_are_read_and_cut_ones_refused(tmp_path):
    path = c.write_scanobjectnn(tmp_path) / 'main_split/test_objectdataset.h5'
    points = np.random.default_rng(0).normal(size=(15, 64, 3)).astype('f4')
    with h5py.File(path, 'w') as f:
        f.create_dataset('data', data=points, compression='gzip', shuffle=True)
        f['label'] = np.arange(15)
    data = pc.ScanObjectNN(str(tmp_path), 'test', 'objectbg')
    assert np.array_equal(data[3]['points'], points[3])
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match='test_objectdataset.h5'):
        len(pc.ScanObjectNN(str(tmp_path), 'test', 'objectbg'))


def test_shape_lists_stay_in_their_class_folders(tmp_path):
    c.write_modelnet40_text(tmp_path)
    (tmp_path / 'airplane/airplane_..').mkdir()
    (tmp_path / 'modelnet40_train.txt').write_text('airplane_../../../other\n')
    (tmp_path.parent / 'other.txt').write_text('1,2,3\n' * 40)
    with pytest.raises(UserError, match=r'airplane_\.|outside of its class folder'):
        len(pc.ModelNet40(str(tmp_path), 'train', num_points=20))
