"""Point clouds on disk, in each published layout, and a brute-force reference."""

from pathlib import Path

import h5py
import numpy as np

from lm4ve.tasks.pointcloud import ModelNet40, ScanObjectNN

TETRAHEDRON = '4 4 6\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n3 0 2 1\n3 0 1 3\n3 0 3 2\n3 1 2 3\n'


def cloud(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 3)).astype('f4')


def write_scanobjectnn(root: Path, per_split: int = 15, points: int = 64) -> Path:
    for nobg, ending in ScanObjectNN.VARIANTS.values():
        for begin in ('training', 'test'):
            path = root / f'main_split{nobg}' / f'{begin}_objectdataset{ending}.h5'
            path.parent.mkdir(parents=True, exist_ok=True)
            with h5py.File(path, 'w') as f:
                f['data'] = np.stack([cloud(points, i) for i in range(per_split)])
                f['label'] = np.arange(per_split) % 15
    return root


def write_modelnet40_text(root: Path, points: int = 80, names=('airplane', 'night_stand')) -> Path:
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
    picks = [0]
    while len(picks) < num:
        best, where = -1, None
        for i, p in enumerate(points):
            nearest = min(int(((p - points[j]) ** 2).sum()) for j in picks)
            if nearest > best:
                best, where = nearest, i
        picks.append(where)
    return picks


def classes_of_modelnet40() -> tuple:
    return ModelNet40.METAINFO['classes']
