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

#: A file, or an array with its content.
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
    scanned = read_points(f'{scene_path}_vert.npy')
    points = read_points(f'{scene_path}_aligned_vert.npy')
    alignment = read_alignment(scan_file)
    xyz = scanned[:, :3].astype(np.float64)
    aligned = xyz @ alignment[:3, :3].T + alignment[:3, 3]
    is_one_scan = scanned.shape == points.shape and (
        np.abs(aligned - points[:, :3]).max() <= 0.01
    )
    if not is_one_scan:
        raise ValueError(
            f"_vert.npy, _aligned_vert.npy and '{scan_file}' are not of one scan"
        )
    scene = dict(
        points=points,
        center=(xyz.max(axis=0) + xyz.min(axis=0)) / 2,
        alignment=alignment,
    )
    if annotations:
        scene['instances'] = _read_labels(scene_path, 'ins_label', len(points))
        scene['semantics'] = _read_labels(scene_path, 'sem_label', len(points))
        scene['boxes'], scene['labels'] = _read_boxes(scene_path)
    for array in scene.values():
        # Several samples share a scene: the release normalizes colors in place, and the
        # second sample sees them normalized twice.
        array.flags.writeable = False
    return scene


def _read_labels(scene_path: str, end: str, count: int) -> np.ndarray:
    """Return the labels of a scene's points, int32 ``[count]``."""
    labels = _read_array(f'{scene_path}_{end}.npy', 1)
    whole = labels.astype(np.int32)
    if len(labels) != count or (whole != labels).any():
        raise ValueError(f'_{end}.npy has not a whole number for each point')
    return whole


def _read_boxes(scene_path: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the boxes of a scene's objects ``[M, 6]``, and their classes ``[M]``."""
    rows = _read_array(f'{scene_path}_aligned_bbox.npy', 2)
    if rows.shape[1] not in (7, 8) or (rows[:, 3:6] < 0).any():
        raise ValueError(
            '_aligned_bbox.npy has not boxes [M, 7 or 8] of positive sizes'
        )
    classes = classes_of(rows[:, 6])
    is_object = classes >= 0
    return rows[is_object, :6].astype(np.float32), classes[is_object]


def read_alignment(path: str | Path) -> np.ndarray:
    """Return ``axisAlignment`` of a scan's ``.txt``, float64 ``[4, 4]``; without one, identity."""
    text = Path(path).read_text(encoding='utf-8')
    check(f"'{path}': lines NAME = VALUE", text.count('='), least=1)
    lines = re.findall(r'(?m)^\s*axisAlignment[^=]*=(.*)$', text)
    if not lines:
        return np.eye(4)
    matrix = np.array(lines[-1].split(), dtype=np.float64).reshape(4, 4)
    turn = matrix[:3, :3]
    is_orthogonal = np.allclose(turn @ turn.T, np.eye(3), atol=1e-3)
    is_mirrored = np.linalg.det(turn) <= 0
    has_last_row = np.allclose(matrix[3], (0, 0, 0, 1), atol=1e-6)
    if not is_orthogonal or is_mirrored or not has_last_row:
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
    colors = points[:, 3:6]
    if colors.min() < 0 or colors.max() > 255:
        raise ValueError('points have colors beyond 0 to 255')
    return points.astype(np.float32)


def _load_whole(path: str | Path) -> np.ndarray:
    """Load a ``.npy`` that is exactly as long as its header says."""
    # Mapped, so that a header cannot claim more than the file has.
    mapped = np.load(path, mmap_mode='r', allow_pickle=False)
    expected = mapped.offset + mapped.nbytes
    size = Path(path).stat().st_size
    require(
        size == expected, f"'{path}' has {size} bytes, but its header says {expected}."
    )
    return np.array(mapped)


def _read_array(source: RoomFile, dimensions: int) -> np.ndarray:
    """Return an array, given or of a ``.npy``, after a check of its content.

    Args:
        source (str | Path | np.ndarray): The file, of which nothing is executed, or the
            array itself.
        dimensions (int): How many dimensions the array must have.

    Returns:
        np.ndarray: The array in its own dtype.

    Raises:
        UserError, ValueError, OSError: The file is cut or a pickle; the array has other
            dimensions, no numbers, or numbers that float32 cannot hold.
    """
    array = source if isinstance(source, np.ndarray) else _load_whole(source)
    require(
        array.ndim == dimensions,
        f'The array has {array.ndim} dimensions, not {dimensions}.',
    )
    described = f'{array.dtype} {list(array.shape)}'
    is_numeric = array.dtype.kind in 'fiu'  # floating, signed or unsigned
    if not is_numeric:
        raise ValueError(f'{described} is no array of numbers')
    if not np.isfinite(array.astype(np.float32)).all():
        raise ValueError(f'{described} with values that are not finite')
    return array
