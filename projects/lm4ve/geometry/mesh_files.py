"""Meshes and clouds in files (.off, .obj, .stl, .ply), as meshes of open3d.

open3d returns what is left of a cut file, reads foreign memory where a face refers to a
vertex that does not exist, and its reader of .obj files opens the other files that they
name. Its readers of text round coordinates to fp32, which has steps of 0.25 at 4,000,000.
So:

- A .ply or a binary .stl file is compared with the counts of its header. Then open3d
  reads it, and what it has read is counted again.
- A text is parsed here (:mod:`lm4ve.geometry.mesh_formats`), with the headers of
  ModelNet40 (``OFF490 518 0``), too. open3d's mesh is made of the parsed numbers.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lm4ve.geometry.mesh_formats import MeshText, parse_obj, parse_off, parse_stl
from lm4ve.geometry.open3d_library import load_open3d
from lm4ve.geometry.ply_check import check_ply
from lm4ve.geometry.polygons import cut_polygons

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
        TriangleMesh: Its vertices, float64 with all digits of the file, and triangles. A
        .ply file that holds a cloud gives vertices alone.

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
    return _build_mesh(parse(data))


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


def _build_mesh(mesh: MeshText) -> 'TriangleMesh':
    """Check a parsed mesh and make open3d's of it, with the same float64 numbers."""
    points = _read_coordinates(mesh.vertices)
    kept_faces = []
    for face in mesh.faces:
        if face and (min(face) < 0 or max(face) >= len(points)):
            raise ValueError('a face refers to a vertex that does not exist')
        # A polygon that has no area cannot be cut.
        if _has_area(face, points):
            kept_faces.append(face)
    triangles = cut_polygons(kept_faces, points)
    open3d = load_open3d()
    return open3d.geometry.TriangleMesh(
        open3d.utility.Vector3dVector(points), open3d.utility.Vector3iVector(triangles)
    )


def _read_coordinates(vertices: Sequence[str]) -> np.ndarray:
    """Return the coordinates of lines 'x y z', float64 ``[V, 3]``."""
    if not vertices or not all(line.strip() for line in vertices):
        raise ValueError('it has no vertices, or one without coordinates')
    try:
        points = np.loadtxt(vertices, usecols=(0, 1, 2), comments=None, ndmin=2)
    except ValueError:
        # NumPy's message shows a part of the file.
        raise ValueError('a vertex has not three numbers') from None
    if not np.isfinite(points).all():
        raise ValueError('a vertex is NaN or infinite: not finite')
    return points


def _has_area(face: Sequence[int], points: np.ndarray) -> bool:
    """Return whether a face counts as a surface: any triangle, or a polygon with an area."""
    if len(face) <= 3:
        return len(face) == 3
    corners = points[face] - points[face[0]]
    next_corners = np.roll(corners, -1, axis=0)
    normal = np.cross(corners, next_corners).sum(axis=0)
    largest_square = np.square(corners).max()
    return bool(np.abs(normal).max() > 1e-12 * largest_square)
