"""Meshes and clouds in files (.off, .obj, .stl, .ply), which open3d reads after a check.

open3d returns what is left of a cut file, reads foreign memory where a face refers to a
vertex that does not exist, and its reader of .obj files opens the other files that they
name. So:

- A .ply or a binary .stl file is compared with the counts of its header, and then read.
- Of a text mesh, open3d reads a plain copy in the format .off, in which all faces have
  been checked. In this way the headers of ModelNet40 (``OFF490 518 0``) are readable,
  too, and coordinates of .obj files keep their digits, which open3d's own reader rounds
  to fp32.
- What has been read is counted again.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lm4ve.geometry.mesh_formats import MeshText, parse_obj, parse_off, parse_stl
from lm4ve.geometry.open3d_library import load_open3d
from lm4ve.geometry.ply_check import check_ply

if TYPE_CHECKING:
    from open3d.geometry import TriangleMesh

#: Bytes of a binary .stl file before its facets, and of each facet.
_STL_HEADER = 84
_STL_FACET = 50
#: The time to cut a polygon grows with the cube of its corners.
_MOST_CORNERS = 300
_PARSERS = {'.off': parse_off, '.obj': parse_obj, '.stl': parse_stl}


def read_mesh(path: str | Path) -> 'TriangleMesh':
    """Read a mesh; polygons become triangles.

    Args:
        path (str | Path): A file ending in .off, .obj, .stl or .ply.

    Returns:
        TriangleMesh: Its vertices and triangles. A .ply file that holds a cloud gives
        vertices alone.

    Raises:
        ValueError, LookupError, OverflowError, MemoryError, OSError: The file is cut or
            damaged.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == '.ply':
        content = check_ply(path)
        return _read_checked(path, content.num_corners, content.num_vertices)
    data = path.read_bytes()
    if suffix == '.stl' and _is_binary_stl(data):
        num_facets = (len(data) - _STL_HEADER) // _STL_FACET
        return _read_checked(path, num_corners=np.full(num_facets, 3))
    parse = _PARSERS[suffix]
    return _read_plain_copy(parse(data))


def read_colored_points(path: str | Path) -> np.ndarray:
    """Read the vertices of a .ply file with their colors.

    Returns:
        np.ndarray: float64 ``[V, 6]``: x, y, z, red, green and blue, as in the file.

    Raises:
        ValueError, LookupError, MemoryError, OSError: The file is cut or damaged, or
            has no colors.
    """
    content = check_ply(path)
    if not {'red', 'green', 'blue'} <= set(content.columns):
        raise ValueError('its vertices have no colors: red, green and blue')
    cloud = load_open3d().io.read_point_cloud(str(path), format='ply')
    points = np.asarray(cloud.points)
    # open3d divides colors by 255, of whatever type they are.
    colors = np.asarray(cloud.colors) * 255
    if len(points) != content.num_vertices or len(colors) != content.num_vertices:
        raise ValueError(
            f'{len(points):,} of its {content.num_vertices:,} vertices can be read'
        )
    return np.hstack((points, colors))


def _is_binary_stl(data: bytes) -> bool:
    """Return whether a file has the size that its count of facets promises."""
    if len(data) < _STL_HEADER:
        return False
    num_facets = int.from_bytes(data[80:84], 'little')
    return len(data) == _STL_HEADER + num_facets * _STL_FACET


def _read_checked(
    path: Path, num_corners: np.ndarray, num_vertices: int | None = None
) -> 'TriangleMesh':
    """Let open3d read a file whose content has been checked, and count what it returns.

    Args:
        path (Path): The file.
        num_corners (np.ndarray): int64 ``[F]``, the corners of each face in it.
        num_vertices (int, optional): The vertices in it; None for a format that does
            not count them.

    Raises:
        ValueError: Faces or vertices are missing, or a face has too many corners.
    """
    if len(num_corners) > 0 and num_corners.max() > _MOST_CORNERS:
        raise ValueError(f'a face has more than {_MOST_CORNERS} corners')
    mesh = load_open3d().io.read_triangle_mesh(str(path))
    # A face of fewer than three corners becomes a triangle without area.
    expected = int(np.maximum(num_corners - 2, 1).sum())
    if len(mesh.triangles) != expected:
        raise ValueError(
            f'its {len(num_corners):,} faces give {len(mesh.triangles):,} triangles instead of '
            f'{expected:,}: a number is damaged, or a face cannot be cut into triangles'
        )
    if num_vertices is not None and len(mesh.vertices) != num_vertices:
        raise ValueError(
            f'{len(mesh.vertices):,} of its {num_vertices:,} vertices can be read'
        )
    return mesh


def _read_plain_copy(mesh: MeshText) -> 'TriangleMesh':
    """Check a mesh, write it as a plain .off file, and let open3d read that."""
    points = _read_coordinates(mesh.vertices)
    kept_faces = []
    for face in mesh.faces:
        if face and (min(face) < 0 or max(face) >= len(points)):
            raise ValueError('a face refers to a vertex that does not exist')
        # open3d cannot cut a polygon that has no area.
        if _has_area(face, points):
            kept_faces.append(face)
    num_corners = np.array([len(face) for face in kept_faces], np.int64)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, 'mesh.off')
        _write_off(copy, points, kept_faces)
        return _read_checked(copy, num_corners, len(points))


def _read_coordinates(vertices: Sequence[str]) -> np.ndarray:
    """Return the coordinates of lines 'x y z', float64 ``[V, 3]``."""
    if not vertices or not all(line.strip() for line in vertices):
        raise ValueError('it has no vertices, or one without coordinates')
    try:
        return np.loadtxt(vertices, usecols=(0, 1, 2), comments=None, ndmin=2)
    except ValueError:
        # NumPy's message shows a part of the file.
        raise ValueError('a vertex has not three numbers') from None


def _has_area(face: Sequence[int], points: np.ndarray) -> bool:
    """Return whether a face counts as a surface: any triangle, or a polygon with an area."""
    if len(face) <= 3:
        return len(face) == 3
    corners = points[face] - points[face[0]]
    next_corners = np.roll(corners, -1, axis=0)
    normal = np.cross(corners, next_corners).sum(axis=0)
    largest_square = np.square(corners).max()
    return bool(np.abs(normal).max() > 1e-12 * largest_square)


def _write_off(path: Path, points: np.ndarray, faces: Sequence[Sequence[int]]) -> None:
    """Write points with all their digits, and faces."""
    lines = ['OFF', f'{len(points)} {len(faces)} 0']
    for x, y, z in points.tolist():
        lines.append(f'{x!r} {y!r} {z!r}')
    for face in faces:
        corners = ' '.join(str(corner) for corner in face)
        lines.append(f'{len(face)} {corners}')
    path.write_text('\n'.join(lines) + '\n')
