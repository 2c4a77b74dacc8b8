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
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lm4ve.tasks.base.mesh_files import read_ply
from lm4ve.tasks.rooms.scannet import class_of

#: Scenes that a process keeps: about 160 MB of ScanQA's 50,000 points.
KEPT_SCENES = 64
#: What :func:`read_objects` looks for.
OBJECT_SUFFIXES = ('.npy', '.npz')
#: How far an aligned point may lie from where the alignment takes it, meters.
_TOLERANCE = 0.01
_LINE = 'axisAlignment'
#: The columns of a mesh's vertex.
COLUMNS = ('x', 'y', 'z', 'red', 'green', 'blue')


class DamagedScene(ValueError):
    """What is wrong with the files of a scene, in words that follow the scene's name."""


@dataclass(frozen=True)
class Scene:
    """A scanned room; the arrays are read-only.

    Attributes:
        points (np.ndarray): float32 ``[V, 6 or 9]``: x, y, z in meters with the walls along
            the axes, red, green and blue from 0 to 255, and normals if the file has them.
        center (np.ndarray): float64 ``[3]``, the middle of the box around the points before
            they were aligned. Positions of SQA3D are relative to it.
        alignment (np.ndarray): float64 ``[4, 4]``, from the scan to the aligned frame.
        instances (np.ndarray, optional): int32 ``[V]``, the object of each point.
        semantics (np.ndarray, optional): int32 ``[V]``, its NYU40 id.
        boxes (np.ndarray, optional): float32 ``[M, 6]``, center and size of each object.
        labels (np.ndarray, optional): int64 ``[M]``, an index of ``scannet.CLASSES``.
    """

    points: np.ndarray
    center: np.ndarray
    alignment: np.ndarray
    instances: np.ndarray | None = None
    semantics: np.ndarray | None = None
    boxes: np.ndarray | None = None
    labels: np.ndarray | None = None


def files_of(scene_path: str, scan_file: str, annotations: bool) -> list[str]:
    """Return the files that :func:`read_scene` reads."""
    names = ['_vert', '_aligned_vert']
    if annotations:
        names += ['_ins_label', '_sem_label', '_aligned_bbox']
    return [*(f'{scene_path}{name}.npy' for name in names), scan_file]


@functools.lru_cache(KEPT_SCENES)
def read_scene(scene_path: str, scan_file: str, annotations: bool = True) -> Scene:
    """Read a scene; the last :data:`KEPT_SCENES` ones are kept by the process.

    Args:
        scene_path (str): What the files' names begin with, ``scannet_data/scene0000_00``.
        scan_file (str): ``scans/scene0000_00/scene0000_00.txt``.
        annotations (bool): Also read objects and their boxes.

    Raises:
        DamagedScene: A file is missing or damaged, or files do not fit each other.
    """
    raw = read_points(f'{scene_path}_vert.npy')
    points = read_points(f'{scene_path}_aligned_vert.npy')
    alignment = read_alignment(scan_file)
    _check_alignment(raw, points, alignment, scan_file)
    found = dict(points=points, center=middle(raw), alignment=alignment)
    if annotations:
        count = len(points)
        found |= dict(
            instances=_read_labels(f'{scene_path}_ins_label.npy', count),
            semantics=_read_labels(f'{scene_path}_sem_label.npy', count),
        )
        found['boxes'], found['labels'] = _read_boxes(f'{scene_path}_aligned_bbox.npy')
    for array in found.values():
        # Several samples share a scene: the release normalizes colors in place, and the
        # second sample sees them normalized twice.
        array.flags.writeable = False
    return Scene(**found)


def read_frame(scene_path: str, scan_file: str) -> tuple[np.ndarray, np.ndarray]:
    """Return ``center`` and ``alignment`` of a :class:`Scene`, without its points.

    Raises:
        DamagedScene: A file is missing or damaged.
    """
    return middle(read_points(f'{scene_path}_vert.npy')), read_alignment(scan_file)


def middle(points: np.ndarray) -> np.ndarray:
    """Return the middle of the box around points ``[V, 3 or more]``, float64 ``[3]``."""
    xyz = points[:, :3].astype(np.float64)
    return (xyz.max(axis=0) + xyz.min(axis=0)) / 2


def read_alignment(path: str) -> np.ndarray:
    """Read ``axisAlignment`` of a scan's ``.txt``; the identity where there is no such line.

    Returns:
        np.ndarray: float64 ``[4, 4]``.

    Raises:
        DamagedScene: The file is missing, the line holds no rotation and shift, or no line
            is ``NAME = VALUE``.
    """
    try:
        text = Path(path).read_text(encoding='utf-8')
        lines = [line for line in text.splitlines() if line.strip().startswith(_LINE)]
        if not lines:
            if '=' in text:  # a whole file describes the scan, whether it is aligned or not
                return np.eye(4)
            raise ValueError('no line NAME = VALUE')
        matrix = np.array(lines[-1].partition('=')[2].split(), dtype=np.float64).reshape(4, 4)
    except (OSError, ValueError) as e:
        raise DamagedScene(f"has a damaged '{path}' ({e})") from e
    turn = matrix[:3, :3]
    is_rotation = np.allclose(turn @ turn.T, np.eye(3), atol=1e-3) and np.linalg.det(turn) > 0
    if not (is_rotation and np.allclose(matrix[3], (0, 0, 0, 1), atol=1e-6)):
        raise DamagedScene(f"has an {_LINE} in '{path}' that is not a rotation and a shift")
    return matrix


def read_objects(object_path: str) -> np.ndarray:
    """Read stored features of a scene's objects.

    Args:
        object_path (str): The file without its ending: a ``.npy``, or a ``.npz`` with one
            array.

    Returns:
        np.ndarray: float32 ``[O, C]``, O and C at least 1.

    Raises:
        DamagedScene: There is no such file, or it is damaged.
    """
    objects = _read_array(object_file(object_path), 2)
    if not objects.size:
        raise DamagedScene(f"has no objects in '{object_path}'")
    return objects.astype(np.float32)


def object_file(object_path: str) -> str:
    """Return the file of a scene's objects.

    Raises:
        DamagedScene: There is none.
    """
    for suffix in OBJECT_SUFFIXES:
        if Path(object_path + suffix).is_file():
            return object_path + suffix
    raise DamagedScene(f"lacks '{object_path}{OBJECT_SUFFIXES[0]}' (or .npz)")


def read_points(path: str) -> np.ndarray:
    """Read points ``[V, 6 or 9]`` of an array file, float32.

    Raises:
        DamagedScene: It is missing, damaged, or holds something else.
    """
    points = _read_array(path, 2)
    if not len(points) or points.shape[1] not in (6, 9):
        raise DamagedScene(f"has '{path}' of {list(points.shape)}, expected points [V, 6 or 9]")
    return points.astype(np.float32)


def read_mesh(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a colored mesh in PLY.

    Returns:
        tuple[np.ndarray, np.ndarray]: float64 ``[V, 6]`` (x, y, z, red, green, blue from 0 to
        255) and the triangles, int64 ``[T, 3]``.

    Raises:
        DamagedScene: It is cut or damaged, has no faces or no colors, or coordinates that are
            not finite.
    """
    try:
        with np.errstate(all='ignore'):
            vertices, triangles = read_ply(path, COLUMNS)
    except (ValueError, TypeError, LookupError, OverflowError, MemoryError, OSError) as e:
        raise DamagedScene(f"has a damaged mesh '{path}' ({e})") from e
    colors = vertices[:, 3:]
    if not (len(vertices) and len(triangles) and np.isfinite(vertices[:, :3]).all()):
        raise DamagedScene(
            f"has a mesh '{path}' without faces, or with numbers that are not finite"
        )
    if not (colors.min() >= 0 and colors.max() <= 255):
        raise DamagedScene(f"has a mesh '{path}' whose colors are not from 0 to 255")
    return vertices, triangles


def vertex_normals(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Return a normal of each vertex: the mean of those of its triangles, of length 1.

    Args:
        points (np.ndarray): float64 ``[V, 3]``.
        triangles (np.ndarray): int64 ``[T, 3]``.

    Returns:
        np.ndarray: float64 ``[V, 3]``; 0 where no triangle has an area.
    """
    a, b, c = points[triangles].transpose(1, 0, 2)
    flat = np.repeat(_unit(np.cross(b - a, c - a)), 3, axis=0)
    corners = triangles.reshape(-1)
    sums = [np.bincount(corners, flat[:, axis], len(points)) for axis in range(3)]
    return _unit(np.stack(sums, axis=1))


def _unit(vectors: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)


def _read_labels(path: str, count: int) -> np.ndarray:
    labels = _read_array(path, 1)
    whole = labels.astype(np.int32)
    if len(labels) != count or (whole != labels).any():
        raise DamagedScene(f"has {count} points, but '{path}' has other labels")
    return whole


def _read_boxes(path: str) -> tuple[np.ndarray, np.ndarray]:
    """Return boxes ``[M, 6]`` and labels ``[M]`` of what is an object."""
    rows = _read_array(path, 2)
    if rows.shape[1] not in (7, 8) or (rows[:, 3:6] < 0).any():
        raise DamagedScene(f"has '{path}' of {list(rows.shape)}, expected boxes [M, 7 or 8]")
    classes = [class_of(int(i)) for i in rows[:, 6]]
    kept = [i for i, label in enumerate(classes) if label is not None]
    labels = np.array([classes[i] for i in kept], dtype=np.int64)
    return rows[kept, :6].astype(np.float32), labels


def _read_array(path: str, dimensions: int) -> np.ndarray:
    """Read an array of finite numbers.

    Raises:
        DamagedScene: The file is missing, cut, a pickle, or holds something else.
    """
    try:
        array = _load(path)
        with np.errstate(all='ignore'):
            finite = array.ndim == dimensions and np.isfinite(array.astype(np.float32)).all()
    except Exception as e:  # numpy evaluates the header as Python's literals
        raise DamagedScene(f"lacks a readable '{path}' ({type(e).__name__}: {e})") from e
    if not finite or array.dtype.kind not in 'fiu':
        raise DamagedScene(
            f"has '{path}' of {array.dtype} {list(array.shape)}, expected finite numbers in "
            f'{dimensions} dimensions'
        )
    return array


def _load(path: str) -> np.ndarray:
    if path.endswith('.npz'):
        with np.load(path, allow_pickle=False) as archive:
            if len(archive.files) != 1:
                raise ValueError(f'{len(archive.files)} arrays instead of one')
            return archive[archive.files[0]]
    # Mapped, so that a header cannot claim more than the file has.
    array = np.load(path, mmap_mode='r', allow_pickle=False)
    whole = array.offset + math.prod(array.shape) * array.itemsize
    if whole != Path(path).stat().st_size:
        raise ValueError('more bytes than its header says')
    return np.array(array)


def _check_alignment(
    raw: np.ndarray, points: np.ndarray, alignment: np.ndarray, scan_file: str
) -> None:
    """Refuse files of different scans: positions would be moved to the wrong place."""
    moved = raw[:, :3] @ alignment[:3, :3].T + alignment[:3, 3]
    if raw.shape != points.shape or not np.abs(moved - points[:, :3]).max() <= _TOLERANCE:
        raise DamagedScene(
            f"has _vert.npy, _aligned_vert.npy and '{scan_file}' that are not of one scan"
        )
