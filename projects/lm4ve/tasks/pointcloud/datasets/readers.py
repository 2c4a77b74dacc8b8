"""Points from files: clouds, meshes (sampled on their surface), arrays, text.

A file that was cut is refused: what it promises is compared with what it holds wherever
the library that reads it does not do so.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lm4ve.errors import StorageError, UserError, check
from lm4ve.files import is_file, naming_storage_errors, replacing
from lm4ve.geometry.mesh_files import read_mesh
from lm4ve.geometry.open3d_library import load_open3d
from lm4ve.geometry.surfaces import sample_surface
from lm4ve.geometry.text_lines import text_lines
from lm4ve.tasks.pointcloud.datasets.pcd_files import read_pcd

#: What :func:`read_points` reads. A .ply file may hold a cloud or a mesh.
EXTENSIONS = ('.ply', '.pcd', '.xyz', '.off', '.obj', '.stl', '.npy', '.txt')


def read_points(
    path: str | Path, num_samples: int = 10000, seed: int = 0
) -> np.ndarray:
    """Read a file's points.

    Args:
        path (str | Path): A file with one of :data:`EXTENSIONS`.
        num_samples (int): Points to draw on a mesh, uniformly over its surface.
        seed (int): Seed of that draw.

    Returns:
        np.ndarray: float32 ``[N, 3]``, in the file's unit; may hold NaN. A cloud so far
        from the origin that float32 would blur it (map coordinates) is moved to its
        mean.

    Raises:
        UserError: The file is missing, empty, damaged, of an unknown kind, or a mesh
            without area.
        StorageError: Storage does not give the file.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    check(f"The ending of '{path}'", suffix, choices=EXTENSIONS)
    if suffix not in _ARRAYS:
        # Before the file is opened: that open3d is missing is not the file's fault.
        load_open3d()
    try:
        # Reading a pipe or a device may never end.
        if not is_file(path):
            raise ValueError('it is no file')
        # Numbers beyond float32 become infinite without NumPy's warnings. They are points
        # that are not finite, which count as damage.
        with np.errstate(all='ignore'), naming_storage_errors(path):
            return as_float32(_read(path, suffix, num_samples, seed))
    except StorageError:
        raise
    except Exception as error:
        # A damaged file makes the readers raise errors of any kind, also MemoryError where
        # it promises billions of points.
        raise UserError(
            f"'{path}' cannot be read: {error}. Fix: fetch it again, or remove it."
        ) from error


def _read(path: Path, suffix: str, num_samples: int, seed: int) -> np.ndarray:
    """Read the points of a cloud's file, or draw points on the surface of a mesh.

    Args:
        path (Path): A regular file.
        suffix (str): Its ending in lower case, one of :data:`EXTENSIONS`.
        num_samples (int): Points to draw on a mesh.
        seed (int): Seed of that draw.

    Returns:
        np.ndarray: ``[N, 3]``, N > 0, in any type of numbers.

    Raises:
        ValueError: There are no points, or a mesh has no surface; and what the readers
            raise for a damaged file.
    """
    if suffix in _ARRAYS:
        points = _ARRAYS[suffix](path)
    elif suffix == '.pcd':
        points = read_pcd(path)
    else:
        mesh = read_mesh(path)
        # Of these formats, .ply alone may hold a cloud: vertices without faces.
        is_mesh = suffix != '.ply' or len(mesh.triangles) > 0
        if is_mesh:
            return sample_surface(mesh, num_samples, seed)
        points = np.asarray(mesh.vertices)
    if len(points) == 0:
        raise ValueError('it has no points')
    return points


def as_float32(points: np.ndarray) -> np.ndarray:
    """Convert points to float32, moved to their mean where rounding would blur the shape.

    float32 has steps of 0.25 at 4,000,000, the size of map coordinates in meters.
    Points stay where they are if such a step is below a hundred-thousandth of their
    extent.
    """
    finite = points[np.isfinite(points).all(axis=1)]
    if len(finite) > 0:
        extent = float(np.ptp(finite, axis=0).max())
        largest = np.abs(finite).max().astype(np.float32)
        step = float(np.spacing(largest))
        if 0 < extent < 1e5 * step:
            points = points - finite.mean(axis=0, dtype=np.float64)
    return np.ascontiguousarray(points, dtype=np.float32)


def _read_array(path: Path) -> np.ndarray:
    """Read the points of a .npy file, ``[N, 3]``; nothing in it is executed."""
    # Reading a pickle could run code.
    array = np.load(path, allow_pickle=False)
    # An .npz archive has no dimensions.
    if getattr(array, 'ndim', 0) != 2 or array.dtype.kind not in 'fiu':
        raise ValueError('it does not hold one array of numbers [N, 3 or more]')
    return coordinates(array)


def coordinates(array: np.ndarray) -> np.ndarray:
    """Return x, y and z of ``[..., N, 3 or more]``.

    Raises:
        ValueError: There are fewer columns, or fewer points than columns, as in ``[3,
            N]``.
    """
    count, columns = array.shape[-2:]
    looks_transposed = columns > 3 and count < columns
    if columns < 3 or looks_transposed:
        raise ValueError(
            f'it holds {count} rows of {columns} numbers, not [N, 3 or more]'
        )
    return array[..., :3]


def _read_text(path: Path) -> np.ndarray:
    """Read the points of a text, ``[N, 3]``: numbers between blanks or commas in each line."""
    lines = text_lines(path.read_bytes())
    # NumPy takes None for blanks.
    delimiter = None
    if any(',' in line for line in lines[:3]):
        delimiter = ','
    first_row = _find_first_row(lines, delimiter)
    try:
        rows = np.loadtxt(lines[first_row:], delimiter=delimiter, ndmin=2)
    except ValueError:
        # NumPy's message would show what the file holds.
        raise ValueError(
            'its lines do not have numbers alone, as many in each'
        ) from None
    return coordinates(rows)


def _find_first_row(lines: list[str], delimiter: str | None) -> int:
    """Return which line has the first point: names or the number of points may come first."""
    for number, line in enumerate(lines[:3]):
        if _is_row(line, delimiter):
            return number
    return 0


def _is_row(line: str, delimiter: str | None) -> bool:
    """Return whether a line has three numbers or more, and nothing else."""
    try:
        numbers = [float(word) for word in line.split(delimiter)]
    except ValueError:
        return False
    return len(numbers) >= 3


#: Readers of arrays and of text, in which open3d would leave out lines without a word.
_ARRAYS: dict[str, Callable[[Path], np.ndarray]] = {
    '.npy': _read_array,
    '.txt': _read_text,
    '.xyz': _read_text,
}


def find_nonfinite(points: np.ndarray) -> str | None:
    """Return how many points have NaN or infinite coordinates, or None if none has.

    Args:
        points (np.ndarray): ``[N, 3]``.

    Returns:
        str or None: In words that follow the cloud's name.
    """
    num_bad = int((~np.isfinite(points).all(axis=1)).sum())
    if num_bad == 0:
        return None
    return f'has {num_bad} of {len(points)} points that are NaN or infinite'


def cached_array(
    cache_dir: str | Path, name: str, key: str, build: Callable[[], np.ndarray]
) -> np.ndarray:
    """Build an array once, and read it from a file after that.

    Args:
        cache_dir (str | Path): Folder of the file.
        name (str): How the file's name begins.
        key (str): All that the array depends on; another key has another file.
        build (callable): Returns the array.

    Returns:
        np.ndarray: From the cache, memory-mapped and read-only.
    """
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    path = Path(cache_dir) / f'{name}_{digest}.npy'
    if not path.is_file():
        array = build()
        with replacing(path) as beside:
            np.save(beside, array, allow_pickle=False)
    return np.load(path, mmap_mode='r', allow_pickle=False)
