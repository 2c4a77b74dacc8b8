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
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lm4ve.errors import check
from lm4ve.tasks.base.mesh_files import read_ply
from lm4ve.tasks.rooms.scannet import class_of

#: Scenes that a process keeps: about 160 MB of ScanQA's 50,000 points.
KEPT_SCENES = 64
#: The largest distance of an aligned point from its place by the alignment, meters.
_TOLERANCE = 0.01
#: The columns of a mesh's vertex.
COLUMNS = ('x', 'y', 'z', 'red', 'green', 'blue')

ArraySource = str | Path | np.ndarray


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
        ValueError, OSError, EOFError: A file is missing or damaged, or files do not fit each
            other.
    """
    raw = read_points(f'{scene_path}_vert.npy')
    points = read_points(f'{scene_path}_aligned_vert.npy')
    alignment = read_alignment(scan_file)
    moved = raw[:, :3] @ alignment[:3, :3].T + alignment[:3, 3]
    if raw.shape != points.shape or not np.abs(moved - points[:, :3]).max() <= _TOLERANCE:
        raise ValueError(f"_vert.npy, _aligned_vert.npy and '{scan_file}' are not of one scan")
    found = dict(points=points, center=middle(raw), alignment=alignment)
    if annotations:
        for name, end in (('instances', 'ins_label'), ('semantics', 'sem_label')):
            found[name] = _read_labels(f'{scene_path}_{end}.npy', len(points))
        found['boxes'], found['labels'] = _read_boxes(f'{scene_path}_aligned_bbox.npy')
    for array in found.values():
        # Several samples share a scene: the release normalizes colors in place, and the
        # second sample sees them normalized twice.
        array.flags.writeable = False
    return Scene(**found)


def read_frame(scene_path: str, scan_file: str) -> tuple[np.ndarray, np.ndarray]:
    """Return ``center`` and ``alignment`` of a :class:`Scene`, without its points."""
    return middle(read_points(f'{scene_path}_vert.npy')), read_alignment(scan_file)


def middle(points: np.ndarray) -> np.ndarray:
    """Return the middle of the box around points ``[V, 3 or more]``, float64 ``[3]``."""
    xyz = points[:, :3].astype(np.float64)
    return (xyz.max(axis=0) + xyz.min(axis=0)) / 2


def read_alignment(path: str) -> np.ndarray:
    """Read ``axisAlignment`` of a scan's ``.txt``; the identity where there is no such line.

    Returns:
        np.ndarray: float64 ``[4, 4]``.
    """
    text = Path(path).read_text(encoding='utf-8')
    check(f"'{path}': lines NAME = VALUE", text.count('='), least=1)
    lines = [line for line in text.splitlines() if line.strip().startswith('axisAlignment')]
    if not lines:
        return np.eye(4)
    matrix = np.array(lines[-1].partition('=')[2].split(), dtype=np.float64).reshape(4, 4)
    turn = matrix[:3, :3]
    is_rotation = np.allclose(turn @ turn.T, np.eye(3), atol=1e-3) and np.linalg.det(turn) > 0
    if not (is_rotation and np.allclose(matrix[3], (0, 0, 0, 1), atol=1e-6)):
        raise ValueError(f"axisAlignment in '{path}' is not a rotation and a shift")
    return matrix


def read_objects(source: ArraySource) -> np.ndarray:
    """Read stored features of a scene's objects.

    Args:
        source (str | Path | np.ndarray): A ``.npy``, a ``.npz`` with one array, or the array.

    Returns:
        np.ndarray: float32 ``[O, C]``, O and C at least 1.
    """
    objects = _read_array(source, 2)
    check('the number of stored features', objects.size, least=1)
    return objects.astype(np.float32)


def object_file(object_path: str) -> str:
    """Return the file of a scene's objects: the .npz where there is one and no .npy."""
    archive = f'{object_path}.npz'
    only = Path(archive).is_file() and not Path(f'{object_path}.npy').is_file()
    return archive if only else f'{object_path}.npy'


def read_points(source: ArraySource) -> np.ndarray:
    """Read points ``[V, 6 or 9]`` of an array or its file, float32."""
    points = _read_array(source, 2)
    check('the number of points', len(points), least=1)
    check('the columns of the points', points.shape[1], choices=(6, 9))
    return points.astype(np.float32)


def read_mesh(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a colored mesh in PLY.

    Returns:
        tuple[np.ndarray, np.ndarray]: float64 ``[V, 6]`` (x, y, z, red, green, blue from 0 to
        255) and the triangles, int64 ``[T, 3]``.

    Raises:
        ValueError, LookupError, MemoryError, OSError: It is cut or damaged, has no vertices or
            no colors, or coordinates that are not finite.
    """
    vertices, triangles = read_ply(path, COLUMNS)
    colors = vertices[:, 3:]
    if not (np.isfinite(vertices).all() and colors.min() >= 0 and colors.max() <= 255):
        raise ValueError(f"'{path}' has vertices that are not finite or colors beyond 0 to 255")
    return vertices, triangles


def vertex_normals(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Return a normal of each vertex: the mean of those of its triangles, of length 1.

    Args:
        points (np.ndarray): float64 ``[V, 3]``.
        triangles (np.ndarray): int64 ``[T, 3]``.

    Returns:
        np.ndarray: float64 ``[V, 3]``; 0 where no triangle has an area.
    """
    check('the mesh: number of triangles', len(triangles), least=1)
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
        raise ValueError(f"'{path}' has not a whole number for each of {count} points")
    return whole


def _read_boxes(path: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the boxes ``[M, 6]`` and classes ``[M]`` of objects, without walls and floors."""
    rows = _read_array(path, 2)
    if rows.shape[1] not in (7, 8) or (rows[:, 3:6] < 0).any():
        raise ValueError(f"'{path}' has not boxes [M, 7 or 8] of positive sizes")
    classes = [class_of(int(i)) for i in rows[:, 6]]
    kept = [i for i, label in enumerate(classes) if label is not None]
    labels = np.array([classes[i] for i in kept], dtype=np.int64)
    return rows[kept, :6].astype(np.float32), labels


def _read_array(source: ArraySource, dimensions: int) -> np.ndarray:
    """Read an array of finite numbers; nothing in a file is executed."""
    if isinstance(source, np.ndarray):
        array = source
    elif str(source).endswith('.npz'):
        with np.load(source, allow_pickle=False) as archive:
            (array,) = archive.values()
    else:
        # Mapped, so that a header cannot claim more than the file has.
        mapped = np.load(source, mmap_mode='r', allow_pickle=False)
        size = mapped.offset + mapped.nbytes
        check(f"'{source}': bytes", Path(source).stat().st_size, choices=(size,))
        array = np.array(mapped)
    check('the dimensions of the array', array.ndim, choices=(dimensions,))
    if array.dtype.kind not in 'fiu' or not np.isfinite(array.astype(np.float32)).all():
        raise ValueError(f'{array.dtype} {list(array.shape)} with values that are not finite')
    return array
