"""Point clouds and meshes on disk, in each published layout and format."""

from pathlib import Path

import h5py
import numpy as np
from plyfile import PlyData, PlyElement
from pypcd4 import Encoding, PointCloud

from lm4ve.geometry.open3d_library import load_open3d
from lm4ve.tasks.pointcloud import ScanObjectNN

TETRAHEDRON = '4 4 6\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n3 0 2 1\n3 0 1 3\n3 0 3 2\n3 1 2 3\n'


def cloud(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 3)).astype('f4')


def write_cloud(
    path: Path, points: np.ndarray, text: bool = False, packed: bool = False
) -> Path:
    """A .ply, .pcd, .npy, .xyz or .txt file of points ``[N, 3]``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == '.ply':
        rows = np.rec.fromarrays(points.T, names='x,y,z')
        PlyData([PlyElement.describe(rows, 'vertex')], text=text).write(path)
    elif path.suffix == '.pcd':
        binary = Encoding.BINARY_COMPRESSED if packed else Encoding.BINARY
        PointCloud.from_xyz_points(points).save(
            path, Encoding.ASCII if text else binary
        )
    elif path.suffix == '.npy':
        np.save(path, points)
    else:
        np.savetxt(path, points, fmt='%.6f', header='X Y Z', comments='')
    return path


def write_mesh(path: Path, text: bool = True):
    """Write a torus to a .off, .obj, .stl or .ply file and return it as open3d's mesh."""
    geometry = load_open3d().geometry
    mesh = geometry.TriangleMesh.create_torus(
        1, 0.3, radial_resolution=8, tubular_resolution=5
    )
    vertices = np.asarray(mesh.vertices).astype('f4')
    triangles = np.asarray(mesh.triangles)
    if path.suffix == '.ply':
        corners = np.empty(len(triangles), [('vertex_indices', object)])
        corners['vertex_indices'] = list(triangles.astype('i4'))
        points = np.rec.fromarrays(vertices.T, names='x,y,z')
        elements = [
            PlyElement.describe(points, 'vertex'),
            PlyElement.describe(corners, 'face'),
        ]
        PlyData(elements, text=text).write(path)
    elif path.suffix == '.stl' and not text:
        facets = np.zeros(
            len(triangles), [('n', '<f4', 3), ('v', '<f4', (3, 3)), ('a', '<u2')]
        )
        facets['v'] = vertices[triangles]
        path.write_bytes(
            bytes(80) + len(facets).to_bytes(4, 'little') + facets.tobytes()
        )
    else:
        path.write_text(_mesh_text(path.suffix, vertices, triangles))
    mesh.vertices = load_open3d().utility.Vector3dVector(vertices.astype('f8'))
    return mesh


def _mesh_text(suffix: str, vertices: np.ndarray, triangles: np.ndarray) -> str:
    places = ['{} {} {}'.format(*v) for v in vertices]
    if suffix == '.off':
        faces = ['3 {} {} {}'.format(*t) for t in triangles]
        lines = ['OFF', f'{len(places)} {len(faces)} 0', *places, *faces]
    elif suffix == '.obj':
        faces = ['f {} {} {}'.format(*t) for t in triangles + 1]
        counts = [
            f'# number of vertices: {len(places)}',
            f'# number of triangles: {len(faces)}',
        ]
        lines = [*counts, *(f'v {place}' for place in places), *faces]
    else:
        loops = ['\n'.join(f'vertex {places[i]}' for i in t) for t in triangles]
        facets = [
            f'facet normal 0 0 1\nouter loop\n{x}\nendloop\nendfacet' for x in loops
        ]
        lines = ['solid torus', *facets, 'endsolid torus']
    return '\n'.join(lines) + '\n'


def write_scanobjectnn(root: Path, per_split: int = 15, points: int = 64) -> Path:
    for nobg, ending in ScanObjectNN.VARIANTS.values():
        for begin in ('training', 'test'):
            path = root / f'main_split{nobg}' / f'{begin}_objectdataset{ending}.h5'
            path.parent.mkdir(parents=True, exist_ok=True)
            with h5py.File(path, 'w') as f:
                f['data'] = np.stack([cloud(points, i) for i in range(per_split)])
                f['label'] = np.arange(per_split) % 15
    return root


def write_modelnet40_text(
    root: Path, points: int = 80, names=('airplane', 'night_stand')
) -> Path:
    """``modelnet40_normal_resampled``, with a few of its classes."""
    for split, numbers in (('train', (1, 2)), ('test', (3,))):
        listed = [f'{n}_{i:04d}' for n in names for i in numbers]
        root.mkdir(parents=True, exist_ok=True)
        (root / f'modelnet40_{split}.txt').write_text('\n'.join(listed) + '\n')
        for k, name in enumerate(listed):
            path = root / name.rpartition('_')[0] / f'{name}.txt'
            path.parent.mkdir(exist_ok=True)
            rows = np.hstack([cloud(points, k), cloud(points, k + 50)])
            np.savetxt(path, rows, fmt='%.6f', delimiter=',')
    return root


def write_modelnet40_meshes(root: Path, names=('airplane', 'xbox')) -> Path:
    """The official meshes; the second has the glued header that many have."""
    for k, name in enumerate(names):
        for split in ('train', 'test'):
            path = root / name / split / f'{name}_0001.off'
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(('OFF\n', 'OFF')[k % 2] + TETRAHEDRON)
    return root


def brute_force_picks(points: np.ndarray, num: int) -> list:
    """Farthest points by their definition, in exact integers."""
    points = points.astype(np.int64)
    squares = ((points[:, None] - points[None]) ** 2).sum(-1)
    picks = [0]
    while len(picks) < num:
        picks.append(int(squares[picks].min(0).argmax()))
    return picks
