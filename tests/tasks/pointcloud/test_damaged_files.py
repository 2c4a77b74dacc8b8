"""What a file of points promises is compared with what it holds."""

import numpy as np
import open3d as o3d
import pytest

from lm4ve.errors import UserError
from lm4ve.tasks.base.mesh_files.triangulation import triangulate
from lm4ve.tasks.pointcloud.datasets.readers import read_points
from tests.tasks.pointcloud.clouds import TETRAHEDRON, cloud

MESHES = [('a.ply', True), ('a.ply', False), ('a.off', True), ('a.obj', True), ('a.stl', False)]
CLOUDS = [
    (f'a.{kind}', text, packed)
    for kind in ('ply', 'pcd')
    for text, packed in ((True, False), (False, False), (False, True))
    if kind == 'pcd' or not packed
]


def _mesh(path, text):
    mesh = o3d.geometry.TriangleMesh.create_torus(1, 0.3, 8, 5)
    mesh.compute_triangle_normals()
    o3d.io.write_triangle_mesh(str(path), mesh, write_ascii=text)


def _cloud(path, text, packed):
    points = np.repeat(cloud(40).astype('f8'), 2, axis=0)  # repeats: something to compress
    pcd = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(points))
    pcd.normals = o3d.utility.Vector3dVector(points)
    o3d.io.write_point_cloud(str(path), pcd, write_ascii=text, compressed=packed)
    return points


def _cuts(path):
    """The file, cut at 40 places, the last byte and the last line among them."""
    whole = path.read_bytes()
    last_line = whole.rstrip(b'\n').rfind(b'\n') + 1
    for at in {*np.linspace(1, len(whole) - 1, 38).astype(int), last_line}:
        path.write_bytes(whole[:at])
        yield at, len(whole)


@pytest.mark.parametrize('name, text', MESHES)
def test_a_mesh_that_was_cut_is_refused(name, text, tmp_path):
    _mesh(tmp_path / name, text)
    read_points(tmp_path / name, 10)
    for at, size in _cuts(tmp_path / name):
        with pytest.raises(UserError, match=name):
            print(at, size, read_points(tmp_path / name, 10))


@pytest.mark.parametrize('name, text, packed', CLOUDS)
def test_a_cloud_that_was_cut_is_refused(name, text, packed, tmp_path):
    points = _cloud(tmp_path / name, text, packed)
    assert np.allclose(read_points(tmp_path / name), points, atol=1e-6)
    for at, size in _cuts(tmp_path / name):
        with pytest.raises(UserError, match=name):
            print(at, size, read_points(tmp_path / name))


@pytest.mark.parametrize(
    'name, content',
    [
        ('a.off', 'OFF\n' + TETRAHEDRON.replace('3 1 2 3', '3 1 2 {}')),
        ('a.obj', 'v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\nf 1 2 {}\n'),
        (
            'a.ply',
            'ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\n'
            'property float z\nelement face 1\nproperty list uchar int vertex_indices\n'
            'end_header\n0 0 0\n1 0 0\n0 1 0\n3 0 1 {}\n',
        ),
    ],
)
@pytest.mark.parametrize('index', [4, 10**6, 2**40, -9])
def test_a_face_that_names_no_vertex_is_refused(name, content, index, tmp_path):
    (tmp_path / name).write_text(content.format(index))
    with pytest.raises(UserError, match=f"'.*{name}' is damaged: a face names vertex"):
        read_points(tmp_path / name)


def test_polygons_are_triangulated(tmp_path):
    # A square of two units, a U of seven corners and area 5, and a triangle.
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
    assert {(int(a), int(b)) for a, b in zip(x, y, strict=True)} >= {(0, 0), (1, 0), (2, 1), (0, 1)}
    # The same polygons, counted from the end, as a .off file and as a .ply file of both kinds.
    (tmp_path / 'b.obj').write_text('v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nf -4 -3 -2 -1\n')
    (tmp_path / 'b.off').write_text('OFF 4 1 0\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n4 0 1 2 3 255 0 0\n')
    header = (
        'ply\nformat {} 1.0\nelement vertex 5\nproperty float x\nproperty float y\n'
        'property float z\nelement face 2\nproperty uchar red\n'
        'property list uchar int vertex_indices\nend_header\n'
    )
    xyz = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0.5, 0.5, 0]])
    text = '\n'.join(' '.join(map(str, row)) for row in xyz)
    (tmp_path / 'b.ply').write_text(header.format('ascii') + text + '\n9 4 0 1 2 3\n9 3 0 1 4\n')
    body = xyz.astype('>f4').tobytes()
    for corners in ([0, 1, 2, 3], [0, 1, 4]):
        body += bytes([9, len(corners)]) + np.array(corners, '>i4').tobytes()
    (tmp_path / 'c.ply').write_bytes(header.format('binary_big_endian').encode() + body)
    for name in ('b.obj', 'b.off', 'b.ply', 'c.ply'):
        points = read_points(tmp_path / name, 2000)
        assert (points.max(0) > 0.97).tolist() == [True, True, False], name
        assert abs(points[:, :2].mean() - 0.5) < 0.1


def _comb(teeth):
    """Corners ``[4 * teeth, 3]`` of a comb: a spine of height 1, teeth of length 2 and width 1."""
    upper = [(2 * i + x, y) for i in range(teeth) for x, y in ((0, 1), (0, 3), (1, 3), (1, 1))]
    ring = [(0, 0), *upper[1:-1], (2 * teeth - 1, 0)]
    return np.array([(x, y, 0) for x, y in ring], float)


def test_a_polygon_of_many_corners_keeps_its_area_and_one_of_too_many_is_refused():
    # Most corners of a comb are no ears: to look at all of them for each ear takes minutes.
    for turn in (1, -1):
        ring = _comb(150)[::turn]
        triangles = triangulate(ring, [range(len(ring))])
        assert len(triangles) == len(ring) - 2
        a, b, c = ring[triangles.T]
        areas = np.cross(b - a, c - a)[:, 2] * turn / 2
        assert (areas <= 0).all() and np.isclose(-areas.sum(), 299 + 2 * 150)
    ring = _comb(2000)
    with pytest.raises(ValueError, match='not convex has 8,000 corners, more than 5,000'):
        triangulate(ring, [range(len(ring))])
    angles = np.linspace(0, 2 * np.pi, 8000, endpoint=False)
    ring = np.stack((np.cos(angles), np.sin(angles), 0 * angles), axis=1)
    assert len(triangulate(ring, [range(len(ring))])) == 7998


@pytest.mark.parametrize('ending', ['xyz', 'txt', 'npy', 'ply', 'pcd'])
def test_map_coordinates_keep_their_shape(ending, tmp_path):
    shape = cloud(200).astype('f8')
    there = shape + (4_123_456.7, 5_712_345.6, 120.0)
    path = tmp_path / f'a.{ending}'
    if ending == 'npy':
        np.save(path, there)
    elif ending in ('txt', 'xyz'):
        np.savetxt(path, there, fmt='%.6f', header='X Y Z', comments='')
    else:
        o3d.io.write_point_cloud(
            str(path), o3d.geometry.PointCloud(o3d.utility.Vector3dVector(there))
        )
    points = read_points(path)
    atol = 0.3 if ending == 'pcd' else 1e-5  # open3d writes .pcd in float32
    assert np.allclose(points - points.mean(0), shape - shape.mean(0), atol=atol)
    # Where nothing is lost, nothing is moved.
    np.save(tmp_path / 'near.npy', shape + 10)
    assert np.allclose(read_points(tmp_path / 'near.npy'), shape + 10, atol=1e-5)


@pytest.mark.parametrize(
    'name, content',
    [
        ('a.xyz', b'0 0 0\n1 2 3.12'),
        ('a.xyz', b'0 0 0\n1 2\n'),
        ('a.txt', b'0,0,0,1,1,1\n1,2,3,1\n'),
        ('a.stl', b'solid a\nfacet normal 0 0 1\nouter loop\nvertex 0 0 0\nvertex 1 0 0\n'),
        (
            'a.ply',
            b'ply\nformat ascii 1.0\nelement vertex 99999999999\nproperty float x\nend_header\n0\n',
        ),
        (
            'a.pcd',
            b'FIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nWIDTH 9999999\nHEIGHT 1\nDATA binary\n000',
        ),
        ('a.pcd', b'FIELDS x y z\nWIDTH 1\nHEIGHT 1\nDATA ascii\n1 2 3\n'),
    ],
)
def test_damage_is_said_without_a_byte_of_the_file(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f'{name}.*(damaged|cut)') as e:
        read_points(tmp_path / name)
    assert '3.12' not in str(e.value)
