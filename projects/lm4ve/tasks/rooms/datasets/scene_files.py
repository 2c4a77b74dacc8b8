"""Read scenes of ScanNet as ScanQA's preparation writes them, and stored features of objects.

Files of a scene (github.com/ATR-DBI/ScanQA, data/scannet/batch_load_scannet_data.py)::

    scannet_data/<scene>_vert.npy            [V, 6 or 9]: x, y, z, red, green, blue, normal
    scannet_data/<scene>_aligned_vert.npy    the same, walls along the axes
    scannet_data/<scene>_ins_label.npy       [V], number of the object
    scannet_data/<scene>_sem_label.npy       [V], NYU40 id
    scannet_data/<scene>_aligned_bbox.npy    [M, 7 or 8]: center, size, NYU40 id, object
    scans/<scene>/<scene>.txt                axisAlignment = 16 numbers

Nothing of a file is executed, and a file that was cut is never read in part.
"""

import functools
import re
from pathlib import Path

import numpy as np

from lm4ve.errors import check, require
from lm4ve.geometry.mesh_files import read_colored_points
from lm4ve.tasks.rooms.datasets.scannet import classes_of

RoomFile = str | Path | np.ndarray


@functools.lru_cache(maxsize=64)
def read_scene(
    scene_path: str, scan_file: str, annotations: bool = True
) -> dict[str, np.ndarray]:
    """Read a scene; a process keeps the last 64, 160 MB of 50,000 points each.

    Args:
        scene_path (str): What the files' names begin with,
            ``scannet_data/scene0000_00``.
        scan_file (str): ``scans/scene0000_00/scene0000_00.txt``.
        annotations (bool): Also read objects and their boxes.

    Returns:
        dict[str, np.ndarray]: Read-only arrays: ``points``, float32 ``[V, 6 or 9]`` (x,
        y, z in meters with the walls along the axes, red, green and blue from 0 to 255,
        and normals if the file has them); ``center``, float64 ``[3]``, the middle of
        the box around the points before they were aligned, from which SQA3D counts
        positions; ``alignment``, float64 ``[4, 4]``, from the scan to the aligned
        frame; and with ``annotations`` ``instances`` and ``semantics``, int32 ``[V]``
        (the object of each point and its NYU40 id), ``boxes``, float32 ``[M, 6]``
        (center and size), and ``labels``, int64 ``[M]``, without walls.

    Raises:
        ValueError, OSError, EOFError: A file is missing or damaged, or files do not fit
            each other.
    """
    raw, points = (
        read_points(f'{scene_path}_{end}.npy') for end in ('vert', 'aligned_vert')
    )
    xyz, alignment = raw[:, :3].astype(np.float64), read_alignment(scan_file)
    center = (xyz.max(axis=0) + xyz.min(axis=0)) / 2
    found = dict(points=points, center=center, alignment=alignment)
    moved = xyz @ alignment[:3, :3].T + alignment[:3, 3]
    if raw.shape != points.shape or not np.abs(moved - points[:, :3]).max() <= 0.01:
        raise ValueError(
            f"_vert.npy, _aligned_vert.npy and '{scan_file}' are not of one scan"
        )
    if annotations:
        for name, end in dict(instances='ins_label', semantics='sem_label').items():
            labels = _read_array(f'{scene_path}_{end}.npy', 1)
            found[name] = labels.astype(np.int32)
            if len(labels) != len(points) or (found[name] != labels).any():
                raise ValueError(f'_{end}.npy has not a whole number for each point')
        rows = _read_array(f'{scene_path}_aligned_bbox.npy', 2)
        if rows.shape[1] not in (7, 8) or (rows[:, 3:6] < 0).any():
            raise ValueError(
                '_aligned_bbox.npy has not boxes [M, 7 or 8] of positive sizes'
            )
        classes = classes_of(rows[:, 6])
        found['boxes'] = rows[classes >= 0, :6].astype(np.float32)
        found['labels'] = classes[classes >= 0]
    for array in found.values():
        # Several samples share a scene: the release normalizes colors in place, and the
        # second sample sees them normalized twice.
        array.flags.writeable = False
    return found


def read_alignment(path: str | Path) -> np.ndarray:
    """Return ``axisAlignment`` of a scan's ``.txt``, float64 ``[4, 4]``; without one, identity."""
    text = Path(path).read_text(encoding='utf-8')
    check(f"'{path}': lines NAME = VALUE", text.count('='), least=1)
    lines = re.findall(r'(?m)^\s*axisAlignment[^=]*=(.*)$', text)
    matrix = (
        np.array(lines[-1].split(), dtype=np.float64).reshape(4, 4)
        if lines
        else np.eye(4)
    )
    turn = matrix[:3, :3]
    is_rotation = (
        np.allclose(turn @ turn.T, np.eye(3), atol=1e-3) and np.linalg.det(turn) > 0
    )
    if not (is_rotation and np.allclose(matrix[3], (0, 0, 0, 1), atol=1e-6)):
        raise ValueError(f"axisAlignment in '{path}' is not a rotation and a shift")
    return matrix


def read_objects(source: RoomFile) -> np.ndarray:
    """Return stored features of a scene's objects, float32 ``[O, C]``, of a .npy or an array."""
    objects = _read_array(source, 2)
    check('the number of stored features', objects.size, least=1)
    return objects.astype(np.float32)


def read_points(source: RoomFile) -> np.ndarray:
    """Return points with colors, float32 ``[V, 6 or 9]``, of a .npy, a .ply or an array.

    Raises:
        ValueError, LookupError, MemoryError, OSError: The file is cut or damaged, there
            are no points or colors, or numbers are not finite.
    """
    if not isinstance(source, np.ndarray) and Path(source).suffix.lower() == '.ply':
        source = read_colored_points(source)
    points = _read_array(source, 2)
    check('the number of points', len(points), least=1)
    check('the columns of the points', points.shape[1], choices=(6, 9))
    if points[:, 3:6].min() < 0 or points[:, 3:6].max() > 255:
        raise ValueError('points have colors beyond 0 to 255')
    return points.astype(np.float32)


def _read_array(source: RoomFile, dimensions: int) -> np.ndarray:
    """Read an array of finite numbers; nothing in a file is executed."""
    if isinstance(source, np.ndarray):
        array = source
    else:
        # Mapped, so that a header cannot claim more than the file has.
        mapped = np.load(source, mmap_mode='r', allow_pickle=False)
        size = mapped.offset + mapped.nbytes
        found = Path(source).stat().st_size
        require(
            found == size, f"'{source}' has {found} bytes, but its header says {size}."
        )
        array = np.array(mapped)
    require(
        array.ndim == dimensions,
        f'The array has {array.ndim} dimensions, not {dimensions}.',
    )
    if array.dtype.kind not in 'fiu' or not np.isfinite(array.astype(np.float32)).all():
        raise ValueError(
            f'{array.dtype} {list(array.shape)} with values that are not finite'
        )
    return array
