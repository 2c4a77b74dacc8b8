"""Meshes keep the digits of their files, wherever they lie, and polygons become triangles."""

import numpy as np
import pytest
from plyfile import PlyData, PlyElement

from lm4ve.errors import UserError
from lm4ve.geometry.mesh_files import read_mesh
from lm4ve.geometry.polygons import cut_polygons
from lm4ve.geometry.surfaces import create_primitive
from lm4ve.tasks.pointcloud.datasets.readers import read_points

#: A place on a map, in meters: float32 has steps of 0.5 there.
FAR = np.array([4_123_456.7, 5_712_345.6, 120.3])
FORMATS = ['off', 'obj', 'stl', 'ply', 'binary.ply']


def write(path, vertices, faces):
    """Write a mesh with all digits of its vertices, float64 ``[V, 3]``."""
    places = [f'{x!r} {y!r} {z!r}' for x, y, z in vertices.tolist()]
    if path.suffix == '.ply':
        corners = np.empty(len(faces), [('vertex_indices', object)])
        corners['vertex_indices'] = [np.array(face, 'i4') for face in faces]
        elements = [
            PlyElement.describe(np.rec.fromarrays(vertices.T, names='x,y,z'), 'vertex'),
            PlyElement.describe(corners, 'face'),
        ]
        PlyData(elements, text='binary' not in path.name).write(path)
        return path
    if path.suffix == '.off':
        lines = ['OFF', f'{len(places)} {len(faces)} 0', *places]
        for face in faces:
            lines.append(' '.join(map(str, [len(face), *face])))
    elif path.suffix == '.obj':
        lines = [f'v {place}' for place in places]
        for face in faces:
            lines.append(' '.join(['f', *[str(corner + 1) for corner in face]]))
    else:
        lines = ['solid a']
        for face in faces:
            lines += ['facet normal 0 0 1', 'outer loop']
            lines += [f'vertex {places[corner]}' for corner in face]
            lines += ['endloop', 'endfacet']
        lines.append('endsolid a')
    path.write_text('\n'.join([*lines, '']))
    return path


def small_sphere():
    """Return vertices and triangles of a sphere of half a meter around the origin."""
    mesh = create_primitive('sphere', np.random.default_rng(0))
    return np.asarray(mesh.vertices) / 2, np.asarray(mesh.triangles).tolist()


@pytest.mark.parametrize('ending', FORMATS)
def test_a_sphere_far_away_keeps_its_radius(ending, tmp_path):
    vertices, faces = small_sphere()
    path = write(tmp_path / f'a.{ending}', vertices + FAR, faces)
    radii = np.linalg.norm(read_points(path, 2000), axis=1)
    # The origin is the mean of the sample, and triangles lie inside of their sphere.
    assert 0.45 < radii.min() and radii.max() < 0.55


@pytest.mark.parametrize('name', ['sphere', 'torus', 'cone', 'mobius', 'box'])
@pytest.mark.parametrize('ending', FORMATS)
def test_a_mesh_far_away_has_the_distances_of_one_at_the_origin(name, ending, tmp_path):
    mesh = create_primitive(name, np.random.default_rng(1))
    faces = np.asarray(mesh.triangles).tolist()
    # What float64 keeps of the far ones, so that both files hold the same shape.
    far = np.asarray(mesh.vertices) + FAR
    near = far - FAR
    there = read_points(write(tmp_path / f'far.{ending}', far, faces), 400, seed=3)
    here = read_points(write(tmp_path / f'near.{ending}', near, faces), 400, seed=3)
    size = np.ptp(near, axis=0).max()
    # A rounding of a coordinate to float32, in both, and float64 at the far place.
    bound = 4 * np.spacing(np.float32(size)) + 8 * np.spacing(FAR.max())
    np.testing.assert_allclose(there - there[0], here - here[0], rtol=0, atol=bound)


@pytest.mark.parametrize('ending', ['off', 'obj', 'stl'])
def test_vertices_keep_all_digits_of_a_text(ending, tmp_path):
    vertices, faces = small_sphere()
    mesh = read_mesh(write(tmp_path / f'a.{ending}', vertices + FAR, faces))
    corners = np.asarray(mesh.vertices)[np.asarray(mesh.triangles)]
    assert np.array_equal(corners, (vertices + FAR)[np.array(faces)])


@pytest.mark.parametrize('value', ['nan', 'inf', '-inf', '1e999'])
@pytest.mark.parametrize('face', ['3 0 1 2', '4 0 1 2 3', '3 1 2 3'])
def test_vertices_that_are_not_finite_are_refused(value, face, tmp_path):
    path = tmp_path / 'a.off'
    path.write_text(f'OFF\n4 1 0\n0 0 {value}\n1 0 0\n1 1 0\n0 1 0\n{face}\n')
    with pytest.raises(UserError, match='a.off.*finite'):
        read_points(path)


# ------------------------------------------------------------------------ polygons
def star(rng, count, least=0.2):
    """Return a polygon without crossings that is not convex, float64 ``[count, 2]``.

    Its corners stand around the origin, at distances from ``least`` to 1.
    """
    angles = np.sort(rng.uniform(0, 2 * np.pi, count))
    # A gap of half a turn or more would leave the middle outside.
    angles = (angles + np.linspace(0, 2 * np.pi, count, endpoint=False)) / 2
    return rng.uniform(least, 1, (count, 1)) * np.c_[np.cos(angles), np.sin(angles)]


def areas(points, triangles):
    """Return the area vectors of triangles, ``[T, 3]``."""
    a, b, c = np.moveaxis(points[triangles], 1, 0)
    return np.cross(b - a, c - a) / 2


@pytest.mark.parametrize('seed', range(30))
def test_triangles_of_a_polygon_are_a_partition_of_it(seed):
    """In any plane, at any place: areas of one sign that sum to the polygon's."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(4, 40))
    flat = star(rng, count)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    points = np.c_[flat, np.zeros(count)] @ turn
    x, y = flat.T
    area = (x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2
    normal = np.cross(turn[0], turn[1])
    for place in (0, FAR):
        triangles = cut_polygons([np.arange(count)], points + place)
        along_normal = areas(points, triangles) @ normal
        assert (along_normal * np.sign(area) >= -1e-9).all()
        assert along_normal.sum() == pytest.approx(area, abs=1e-9)


def test_polygons_of_all_sizes_stay_in_their_order():
    rng = np.random.default_rng(0)
    points = []
    faces = []
    for count in (3, 7, 4, 4, 3, 7, 5):
        first = len(points)
        flat = star(rng, count)
        points.extend([x, y, 0] for x, y in flat)
        faces.append(np.arange(first, first + count))
    points = np.array(points)
    together = cut_polygons(faces, points)
    alone = [cut_polygons([face], points) for face in faces]
    assert np.array_equal(together, np.concatenate(alone))


#: Polygons in the plane, with corners on an edge, a hole with its bridge, a U.
ODD = {
    'corners on edges': [(0, 0), (1, 0), (2, 0), (2, 2), (1, 2), (0, 2), (0, 1)],
    'two on the last edge': [(2, 0), (2, 2), (0, 0), (1, 0), (1.5, 0)],
    'hole': [
        *[(0, 0), (4, 0), (4, 4), (0, 4), (0, 0)],
        *[(1, 1), (1, 3), (3, 3), (3, 1), (1, 1)],
    ],
    'U': [(0, 0), (3, 0), (3, 2), (2, 2), (2, 1), (1, 1), (1, 2), (0, 2)],
}
AREAS = {'corners on edges': 4, 'two on the last edge': 2, 'hole': 12, 'U': 5}


@pytest.mark.parametrize('name', ODD)
@pytest.mark.parametrize('plane', ['xy', 'xz', 'zy'])
@pytest.mark.parametrize('backwards', [False, True])
def test_odd_polygons_are_cut_from_any_corner_on(name, plane, backwards):
    corners = np.array(ODD[name], float)
    points = np.zeros((len(corners), 3))
    points[:, ['xyz'.index(axis) for axis in plane]] = corners
    order = [*range(len(points))]
    if backwards:
        order.reverse()
    for first in range(len(order)):
        face = np.array(order[first:] + order[:first])
        vectors = areas(points, cut_polygons([face], points))
        assert np.abs(vectors.sum(axis=0)).max() == pytest.approx(AREAS[name])
        # None overlaps another: the areas do not exceed their sum.
        sizes = np.linalg.norm(vectors, axis=1)
        assert sizes.sum() == pytest.approx(AREAS[name])


def test_walls_are_sampled_without_the_gap_of_a_u(tmp_path):
    points = np.array([(x, 0, z) for x, z in ODD['U']], float)
    path = write(tmp_path / 'a.obj', points, [[*range(8)]])
    x, _, z = read_points(path, 5000).T
    assert not ((x > 1.001) & (x < 1.999) & (z > 1.001)).any()


def test_a_polygon_that_crosses_itself_is_refused(tmp_path):
    corners = np.array([(0, 0, 0), (3, 3, 0), (3, 0, 0), (0, 1, 0)], float)
    path = write(tmp_path / 'a.off', corners, [[0, 1, 2, 3]])
    with pytest.raises(UserError, match='a.off.*triangles'):
        read_points(path)
