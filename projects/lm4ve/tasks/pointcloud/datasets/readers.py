"""Points from files: clouds, meshes (sampled on their surface), arrays, text.

Every reader compares what a file promises with what it holds: a file that was cut is
refused and never read in part. open3d only draws points on the checked surfaces.
"""

import hashlib
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lm4ve.errors import UserError
from lm4ve.files import replacing
from lm4ve.tasks.base.mesh_files.off_obj_stl import check_last_line, read_obj, read_off, read_stl
from lm4ve.tasks.base.mesh_files.ply import read_ply
from lm4ve.tasks.base.meshes import import_open3d
from lm4ve.tasks.pointcloud.datasets.pcd_files import read_pcd

#: What :func:`read_points` takes. A .ply may hold a cloud or a mesh.
EXTENSIONS = ('.ply', '.pcd', '.xyz', '.off', '.obj', '.stl', '.npy', '.txt')


def read_points(path: str | Path, num_samples: int = 10000, seed: int = 0) -> np.ndarray:
    """Read a file's points.

    Args:
        path (str | Path): A file with one of :data:`EXTENSIONS`.
        num_samples (int): How many points to draw of a mesh, uniformly over
            its surface.
        seed (int): Seed of that draw.

    Returns:
        np.ndarray: float32 ``[N, 3]``, in the file's unit; may hold NaN. A cloud that lies
        so far from the origin that float32 would blur it (map coordinates) is
        moved to its mean.

    Raises:
        UserError: The file is missing, empty, damaged, of an unknown kind, or a
            mesh without area.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f"The point cloud '{path}' does not exist. Fix: check data_root and the list of files."
        )
    suffix = path.suffix.lower()
    if suffix not in EXTENSIONS:
        raise UserError(
            f"'{path}' is no point cloud: its name ends in "
            f"'{suffix}', expected {', '.join(EXTENSIONS)}."
        )
    if path.stat().st_size == 0:
        raise UserError(f"'{path}' is empty (0 bytes). Fix: fetch it again, or remove it.")
    read = {'.npy': _read_array, '.txt': _read_text, '.pcd': _read_pcd, '.xyz': _read_text}
    try:
        with np.errstate(all='ignore'):  # what overflows is refused, or becomes infinite
            points = read[suffix](path) if suffix in read else _read_mesh(path, num_samples, seed)
            points = as_float32(points)
    except (ValueError, TypeError, LookupError, OverflowError, MemoryError, struct.error) as e:
        raise UserError(f"'{path}' is damaged: {e}. Fix: fetch it again, or remove it.") from e
    if len(points) == 0:
        raise UserError(
            f"'{path}' ({path.stat().st_size:,} bytes) has no "
            'points. Fix: check that it is whole and that its '
            'ending tells its format; or remove it.'
        )
    return points


def as_float32(points: np.ndarray) -> np.ndarray:
    """Points as float32, moved to their mean where rounding would blur the shape.

    float32 has steps of 0.25 at 4,000,000, the size of map coordinates in meters. Points
    stay where they are if such a step is below a hundred-thousandth of their extent.
    """
    finite = points[np.isfinite(points).all(axis=1)]
    if len(finite):
        extent = float(np.ptp(finite, axis=0).max())
        step = float(np.spacing(np.abs(finite).max().astype(np.float32)))
        if 0 < extent < 1e5 * step:
            points = points - finite.mean(axis=0, dtype=np.float64)
    return np.ascontiguousarray(points, dtype=np.float32)


def _read_array(path: Path) -> np.ndarray:
    try:
        # Never a pickle: reading one could run code.
        array = np.load(path, allow_pickle=False)
    except Exception as e:  # numpy evaluates the header as Python's literals
        raise UserError(
            f"'{path}' is no array that can be read safely: it is cut, or a pickle. "
            'Expected numbers [N, 3 or more]. Fix: fetch or save it again.'
        ) from e
    if not isinstance(array, np.ndarray):
        raise UserError(f"'{path}' is an archive, expected one array [N, 3 or more].")
    if array.ndim != 2 or array.shape[1] < 3 or array.dtype.kind not in 'fiu':
        raise UserError(
            f"'{path}' holds {array.dtype} {list(array.shape)}, expected numbers [N, 3 or more]."
        )
    return array[:, :3]


def _read_text(path: Path) -> np.ndarray:
    data = path.read_bytes()
    # Names of columns, or the number of points, may come first.
    lines = data.decode('latin-1').splitlines()
    delimiter = ',' if any(',' in line for line in lines[:3]) else None
    first = next((i for i, line in enumerate(lines[:3]) if _is_row(line, delimiter)), 0)
    try:
        array = np.loadtxt(lines[first:], delimiter=delimiter, ndmin=2)
    except ValueError as e:
        raise UserError(
            f"'{path}' is no table of numbers, or was cut. Expected one "
            'point a line: x, y, z and perhaps more.'
        ) from e
    if array.size and array.shape[1] < 3:
        raise UserError(f"'{path}' has {array.shape[1]} column(s), expected at least x, y, z.")
    check_last_line(data)
    return array[:, :3]


def _is_row(line: str, delimiter: str | None) -> bool:
    try:
        return len([float(word) for word in line.split(delimiter)]) >= 3
    except ValueError:
        return False


def _read_pcd(path: Path) -> np.ndarray:
    return read_pcd(path.read_bytes())


def _read_mesh(path: Path, num_samples: int, seed: int) -> np.ndarray:
    read = {'.off': read_off, '.obj': read_obj, '.stl': read_stl, '.ply': read_ply}
    points, triangles = read[path.suffix.lower()](path.read_bytes())
    if len(triangles) == 0:
        return points if path.suffix.lower() == '.ply' else points[:0]
    a, b, c = points[triangles].transpose(1, 0, 2)
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2
    if not 0 < area < np.inf:
        raise UserError(
            f"The surface of '{path}' has no area, or an infinite one, so no points "
            'can be drawn on it. Fix: remove the file.'
        )
    o3d = import_open3d()
    mesh = o3d.geometry.TriangleMesh(
        o3d.utility.Vector3dVector(points), o3d.utility.Vector3iVector(triangles)
    )
    o3d.utility.random.seed(seed)
    return np.asarray(mesh.sample_points_uniformly(num_samples).points)


def drop_nonfinite(points: np.ndarray, origin: str, on_corrupt: str = 'skip') -> np.ndarray:
    """Remove points with NaN or infinite coordinates.

    Args:
        points (np.ndarray): ``[N, 3]``.
        origin (str): What the message calls the cloud.
        on_corrupt (str): 'skip', or 'refuse' to raise.

    Returns:
        np.ndarray: ``[M, 3]``, M > 0.

    Raises:
        UserError: None is finite, or one is not and ``on_corrupt='refuse'``.
    """
    finite = np.isfinite(points).all(axis=1)
    if finite.all():
        return points
    bad = int((~finite).sum())
    if on_corrupt == 'refuse' or bad == len(points):
        raise UserError(
            f'{origin}: {bad} of {len(points)} points have NaN or infinite '
            'coordinates. Fix: repair or remove the cloud'
            + ('.' if bad == len(points) else ", or set dataset.on_corrupt='skip'.")
        )
    return points[finite]


def cached_array(
    cache_dir: str | Path | None, name: str, key: str, build: Callable[[], np.ndarray]
) -> np.ndarray:
    """An array that is built once and read from a file after that.

    Args:
        cache_dir (str | Path, optional): Folder of the file; None builds every time.
        name (str): Begin of the file's name.
        key (str): All that the array depends on; another key, another file.
        build (callable): Returns the array.

    Returns:
        np.ndarray: From the cache, memory-mapped and read-only.
    """
    if cache_dir is None:
        return build()
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    path = Path(cache_dir) / f'{name}_{digest}.npy'
    if not path.is_file():
        array = build()
        with replacing(path) as beside:
            np.save(beside, array, allow_pickle=False)
    try:
        return np.load(path, mmap_mode='r', allow_pickle=False)
    except Exception as e:  # numpy evaluates the header as Python's literals
        raise UserError(
            f"The cache '{path}' is damaged ({type(e).__name__}). Fix: delete it; it is made anew."
        ) from e
