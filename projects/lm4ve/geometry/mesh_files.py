"""Meshes and clouds in files (.off, .obj, .stl, .ply), as meshes of open3d.

open3d's own readers return what is left of a cut file, read foreign memory where a face
refers to a vertex that does not exist, open the other files that an .obj file names, and
round the coordinates of a text to fp32, which has steps of 0.25 at 4,000,000. So every
file is parsed here, once: a .ply file by the package plyfile
(:mod:`lm4ve.geometry.ply_files`), others by :mod:`lm4ve.geometry.mesh_formats`. open3d's
mesh is made of the parsed numbers.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lm4ve.geometry.mesh_formats import MeshContent, parse_obj, parse_off, parse_stl
from lm4ve.geometry.open3d_library import load_open3d
from lm4ve.geometry.ply_files import read_ply
from lm4ve.geometry.polygons import cut_polygons

if TYPE_CHECKING:
    from open3d.geometry import TriangleMesh

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
        return _build_mesh(read_ply(path).mesh)
    parse = _PARSERS[suffix]
    return _build_mesh(parse(path.read_bytes()))


def read_colored_points(path: str | Path) -> np.ndarray:
    """Read the vertices of a .ply file with their colors.

    Returns:
        np.ndarray: float64 ``[V, 6]``: x, y, z, red, green and blue, as in the file.

    Raises:
        ValueError, LookupError, MemoryError, OSError: The file is cut or damaged, or
            has no colors.
    """
    content = read_ply(path)
    if content.colors is None:
        raise ValueError('its vertices have no colors: red, green and blue')
    return np.hstack((content.mesh.points, content.colors))


def _build_mesh(mesh: MeshContent) -> 'TriangleMesh':
    """Check a parsed mesh and make open3d's of it, with the same float64 numbers."""
    if len(mesh.corners) > 0:
        if mesh.corners.min() < 0 or mesh.corners.max() >= len(mesh.points):
            raise ValueError('a face refers to a vertex that does not exist')
        if not np.isfinite(mesh.points).all():
            raise ValueError('a vertex is NaN or infinite: not finite')
    open3d = load_open3d()
    return open3d.geometry.TriangleMesh(
        open3d.utility.Vector3dVector(mesh.points),
        open3d.utility.Vector3iVector(_triangles_of(mesh)),
    )


def _triangles_of(mesh: MeshContent) -> np.ndarray:
    """Return the triangles of a mesh, int ``[T, 3]``, in the order of its faces."""
    if (mesh.num_corners == 3).all():
        return mesh.corners.reshape(-1, 3)
    ends = np.cumsum(mesh.num_corners)
    faces = np.split(mesh.corners, ends[:-1])
    # A polygon that has no area cannot be cut.
    kept = [face for face in faces if _has_area(face, mesh.points)]
    return cut_polygons(kept, mesh.points)


def _has_area(face: np.ndarray, points: np.ndarray) -> bool:
    """Return whether a face counts as a surface: any triangle, or a polygon with an area."""
    if len(face) <= 3:
        return len(face) == 3
    corners = points[face] - points[face[0]]
    next_corners = np.roll(corners, -1, axis=0)
    normal = np.cross(corners, next_corners).sum(axis=0)
    largest_square = np.square(corners).max()
    return bool(np.abs(normal).max() > 1e-12 * largest_square)
