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
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lm4ve.tasks.rooms.scannet import class_of

#: Bytes of the scenes that a process keeps: about 64 of ScanQA's 50,000 points, or thousands
#: of small ones.
KEPT_BYTES = 160 * 2**20
#: What :func:`read_objects` looks for.
OBJECT_SUFFIXES = ('.npy', '.npz')
#: How far an aligned point may lie from where the alignment takes it, meters.
_TOLERANCE = 0.01
_LINE = 'axisAlignment'


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

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(x.nbytes for x in vars(self).values() if x is not None)


def files_of(scene_path: str, scan_file: str, annotations: bool) -> list[str]:
    """Return the files that :func:`read_scene` reads."""
    names = ['_vert', '_aligned_vert']
    if annotations:
        names += ['_ins_label', '_sem_label', '_aligned_bbox']
    return [*(f'{scene_path}{name}.npy' for name in names), scan_file]


def _keep(read: Callable[..., Scene]) -> Any:
    """Keep what was read last. ``functools.lru_cache`` counts scenes, whatever their size."""
    kept: OrderedDict[tuple, Scene] = OrderedDict()
    size = 0

    @functools.wraps(read)
    def wrapped(*key: Any) -> Scene:
        nonlocal size
        if key in kept:
            kept.move_to_end(key)
            return kept[key]
        scene = kept[key] = read(*key)
        size += scene.nbytes
        while size > KEPT_BYTES and len(kept) > 1:
            size -= kept.popitem(last=False)[1].nbytes
        return scene

    def clear() -> None:
        nonlocal size
        kept.clear()
        size = 0

    wrapped.cache_clear = clear  # type: ignore[attr-defined]
    return wrapped


@_keep
def read_scene(scene_path: str, scan_file: str, annotations: bool = True) -> Scene:
    """Read a scene; the last ones, up to :data:`KEPT_BYTES`, are kept by the process.

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
        text = Path(path).read_bytes().decode('utf-8')
    except (OSError, ValueError) as e:
        raise DamagedScene(f"lacks a readable '{path}' ({_reason(e)})") from e
    lines = [line for line in text.splitlines() if line.strip().startswith(_LINE)]
    if not lines:
        if '=' not in text:  # a whole file describes the scan, whether it is aligned or not
            raise DamagedScene(f"has '{path}' without a line NAME = VALUE, so it may be cut")
        return np.eye(4)
    try:
        numbers = [float(word) for word in lines[-1].partition('=')[2].split()]
    except ValueError:
        numbers = []
    found = np.array(numbers)
    if len(found) == 16 and np.isfinite(found).all():
        matrix = found.reshape(4, 4)
        turn = matrix[:3, :3]
        is_rotation = np.allclose(turn @ turn.T, np.eye(3), atol=1e-3) and np.linalg.det(turn) > 0
        if is_rotation and np.allclose(matrix[3], (0, 0, 0, 1), atol=1e-6):
            return matrix
    raise DamagedScene(
        f"has an {_LINE} in '{path}' that is no rotation and shift of 16 numbers (found "
        f'{len(numbers)})'
    )


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
    path = object_file(object_path)
    objects = _read_array(path, 'a table [O, C] of objects', 'f', 2)
    if not objects.size:
        raise DamagedScene(f"has no objects: '{path}' holds {list(objects.shape)}")
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
    points = _read_array(path, 'points [V, 6 or 9]', 'fiu', 2)
    if not len(points) or points.shape[1] not in (6, 9):
        raise DamagedScene(f"has '{path}' of {list(points.shape)}, expected points [V, 6 or 9]")
    return points.astype(np.float32)


def _read_labels(path: str, count: int) -> np.ndarray:
    labels = _read_array(path, f'whole numbers [{count}]', 'iuf', 1)
    if len(labels) != count:
        raise DamagedScene(f"has {count} points, but '{path}' labels {len(labels)}")
    if labels.size and (np.abs(labels.astype(np.float64)) > 2**31 - 1).any():
        raise DamagedScene(f"has labels in '{path}' that are no numbers of objects")
    return labels.astype(np.int32)


def _read_boxes(path: str) -> tuple[np.ndarray, np.ndarray]:
    """Return boxes ``[M, 6]`` and labels ``[M]`` of what is an object."""
    rows = _read_array(path, 'boxes [M, 7 or 8]', 'fiu', 2)
    if rows.shape[1] not in (7, 8):
        raise DamagedScene(f"has '{path}' of {list(rows.shape)}, expected boxes [M, 7 or 8]")
    if (rows[:, 3:6] < 0).any():
        raise DamagedScene(f"has boxes of negative size in '{path}'")
    classes = [class_of(int(i)) for i in rows[:, 6]]
    kept = [i for i, label in enumerate(classes) if label is not None]
    labels = np.array([classes[i] for i in kept], dtype=np.int64)
    return rows[kept, :6].astype(np.float32), labels


def _read_array(path: str, expected: str, kinds: str, dimensions: int) -> np.ndarray:
    """Read an array of finite numbers.

    Raises:
        DamagedScene: The file is missing, cut, a pickle, or holds something else.
    """
    if not Path(path).is_file():
        raise DamagedScene(f"lacks '{path}'")
    try:
        array = _load(path)
    except Exception as e:  # numpy evaluates the header as Python's literals
        raise DamagedScene(
            f"has '{path}', which is no array that can be read safely: it is cut, or a pickle "
            f'({type(e).__name__}). Expected {expected}'
        ) from e
    if array.dtype.kind not in kinds or array.ndim != dimensions:
        raise DamagedScene(
            f"has '{path}' of {array.dtype} {list(array.shape)}, expected {expected}"
        )
    with np.errstate(all='ignore'):
        # Of none there is none that is not finite.
        finite = np.isfinite(array.astype(np.float32)).all(axis=tuple(range(1, array.ndim)))
    if not finite.all():
        raise DamagedScene(
            f'has {int((~finite).sum())} of {len(array)} rows with NaN or infinite numbers in '
            f"'{path}'"
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
    if raw.shape != points.shape:
        raise DamagedScene(
            f'has {list(raw.shape)} in _vert.npy, but {list(points.shape)} in _aligned_vert.npy'
        )
    moved = raw[:, :3] @ alignment[:3, :3].T + alignment[:3, 3]
    off = float(np.abs(moved - points[:, :3]).max())
    if not off <= _TOLERANCE:
        raise DamagedScene(
            f"has an aligned point {off:.3g} m from where {_LINE} in '{scan_file}' takes it: "
            '_vert.npy, _aligned_vert.npy and this file are not of one scan'
        )


def _reason(error: Exception) -> str:
    return getattr(error, 'strerror', None) or type(error).__name__
