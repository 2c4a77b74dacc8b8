"""Points from files: clouds, meshes (sampled on their surface), arrays, text.

open3d reads the formats; what it reads badly or not at all (glued OFF headers,
text with other separators, silent failures) is handled here, since such files
are in the published data sets.
"""

import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lm4ve.engine.files import replacing
from lm4ve.errors import UserError

#: What :func:`read_points` takes. A .ply may hold a cloud or a mesh.
EXTENSIONS = ('.ply', '.pcd', '.xyz', '.off', '.obj', '.stl', '.npy', '.txt')


def import_open3d():
    """Import open3d and silence its log; our own errors say what is wrong with a file."""
    try:
        import open3d  # heavy, and only file formats and meshes need it
    except (ImportError, OSError) as e:
        raise UserError(
            f'open3d, which reads point clouds and meshes, cannot be imported '
            f'({e}). Fix: pip install -r requirements/pointcloud.txt, and see '
            'docs/get_started/install.md for its system libraries.'
        ) from e
    open3d.utility.set_verbosity_level(open3d.utility.VerbosityLevel.Error)
    return open3d


def read_points(path: str | Path, num_samples: int = 10000, seed: int = 0) -> np.ndarray:
    """Read a file's points.

    Args:
        path (str | Path): A file with one of :data:`EXTENSIONS`.
        num_samples (int): How many points to draw of a mesh, uniformly over
            its surface.
        seed (int): Seed of that draw.

    Returns:
        np.ndarray: float32 ``[N, 3]``, in the file's unit; may hold NaN.

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
    read = {'.npy': _read_array, '.txt': _read_text, '.pcd': _read_cloud, '.xyz': _read_cloud}
    points = read[suffix](path) if suffix in read else _read_mesh(path, num_samples, seed)
    if len(points) == 0:
        raise UserError(
            f"'{path}' ({path.stat().st_size:,} bytes) has no "
            'points. Fix: check that it is whole and that its '
            'ending tells its format; or remove it.'
        )
    return np.ascontiguousarray(points, dtype=np.float32)


def _read_array(path: Path) -> np.ndarray:
    try:
        # Never a pickle: reading one could run code.
        array = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as e:
        raise UserError(
            f"'{path}' is no array that can be read safely: {e}. Expected numbers [N, 3 or more]."
        ) from e
    if array.ndim != 2 or array.shape[1] < 3 or array.dtype.kind not in 'fiu':
        raise UserError(
            f"'{path}' holds {array.dtype} {list(array.shape)}, expected numbers [N, 3 or more]."
        )
    return array[:, :3]


def _read_text(path: Path) -> np.ndarray:
    with open(path) as f:
        delimiter = ',' if ',' in f.readline() else None
    try:
        array = np.loadtxt(path, delimiter=delimiter, ndmin=2, dtype=np.float32)
    except ValueError as e:
        raise UserError(
            f"'{path}' is no table of numbers: {e}. Expected one "
            'point a line: x, y, z and perhaps more.'
        ) from e
    if array.size and array.shape[1] < 3:
        raise UserError(f"'{path}' has {array.shape[1]} column(s), expected at least x, y, z.")
    return array[:, :3]


def _read_cloud(path: Path) -> np.ndarray:
    cloud = import_open3d().io.read_point_cloud(
        str(path), remove_nan_points=False, remove_infinite_points=False
    )
    return np.asarray(cloud.points)


def _read_mesh(path: Path, num_samples: int, seed: int) -> np.ndarray:
    o3d = import_open3d()
    with tempfile.TemporaryDirectory() as folder:
        source = path
        if path.suffix.lower() == '.off':
            source = _with_whole_header(path, Path(folder))
        mesh = o3d.io.read_triangle_mesh(str(source))
    if path.suffix.lower() == '.ply' and len(mesh.triangles) == 0:
        return _read_cloud(path)
    if len(mesh.triangles) == 0:
        return np.zeros((0, 3))
    if not mesh.get_surface_area() > 0:
        raise UserError(
            f"The surface of '{path}' has no area, so no points "
            'can be drawn on it. Fix: remove the file.'
        )
    o3d.utility.random.seed(seed)
    return np.asarray(mesh.sample_points_uniformly(num_samples).points)


def _with_whole_header(path: Path, folder: Path) -> Path:
    """Many of ModelNet40's files begin ``OFF490 518 0``; no reader takes that."""
    with open(path, 'rb') as f:
        first = f.readline()
        if not first.startswith(b'OFF') or not first[3:].strip():
            return path
        whole = folder / 'whole.off'
        whole.write_bytes(b'OFF\n' + first[3:].strip() + b'\n' + f.read())
    return whole


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
    except (ValueError, OSError, EOFError) as e:
        raise UserError(
            f"The cache '{path}' is damaged ({e}). Fix: delete it; it is made anew."
        ) from e
