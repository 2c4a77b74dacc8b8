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

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lm4ve.geometry.open3d_library import load_open3d
from lm4ve.geometry.ply_check import check_ply
from lm4ve.geometry.text_lines import text_lines

if TYPE_CHECKING:
    from open3d.geometry import TriangleMesh

#: Bytes of a binary .stl file before its facets, and of each facet.
_STL_HEADER, _STL_FACET = 84, 50
#: The time to cut a polygon grows with the cube.
_MOST_CORNERS = 300


def read_mesh(path: str | Path) -> 'TriangleMesh':
    """Read a mesh; polygons become triangles.

    Args:
        path (str | Path): A file ending in .off, .obj, .stl or .ply.

    Returns:
        TriangleMesh: Its vertices and triangles. A .ply file that holds a cloud gives
            vertices
        alone.

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
        return _read_checked(path, np.full(num_facets, 3))
    parse = {'.off': _parse_off, '.obj': _parse_obj, '.stl': _parse_stl}[suffix]
    vertices, faces = parse(data)
    return _read_plain_copy(vertices, faces)


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


def _read_checked(
    path: Path, num_corners: np.ndarray, num_vertices: int | None = None
) -> 'TriangleMesh':
    """Read a file whose content has been checked, and count what came of it."""
    if len(num_corners) and num_corners.max() > _MOST_CORNERS:
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


# ------------------------------------------------------------------- meshes as text
def _read_plain_copy(
    vertices: Sequence[str], faces: Sequence[list[int]]
) -> 'TriangleMesh':
    """Read a mesh of lines 'x y z' and of the corners of faces, counted from 0."""
    if not vertices or not all(line.strip() for line in vertices):
        raise ValueError('it has no vertices, or one without coordinates')
    try:
        points = np.loadtxt(vertices, usecols=(0, 1, 2), comments=None, ndmin=2)
    except ValueError:
        raise ValueError(
            'a vertex has not three numbers'
        ) from None  # nothing of the file is shown
    kept = []
    for face in faces:
        if face and not 0 <= min(face) <= max(face) < len(points):
            raise ValueError('a face refers to a vertex that does not exist')
        if _has_area(face, points):
            kept.append(face)
    lines = ['OFF', f'{len(points)} {len(kept)} 0']
    lines += [f'{x!r} {y!r} {z!r}' for x, y, z in points.tolist()]
    lines += [' '.join(map(str, [len(face), *face])) for face in kept]
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, 'mesh.off')
        copy.write_text('\n'.join([*lines, '']))
        num_corners = np.array([len(face) for face in kept], np.int64)
        return _read_checked(copy, num_corners, len(points))


def _has_area(face: Sequence[int], points: np.ndarray) -> bool:
    """Tell whether a polygon has an area; open3d cannot cut one that has none."""
    if len(face) <= 3:
        return len(face) == 3
    corners = points[face] - points[face[0]]
    normal = np.cross(corners, np.roll(corners, -1, axis=0)).sum(axis=0)
    return bool(np.abs(normal).max() > 1e-12 * np.square(corners).max())


def _parse_off(data: bytes) -> tuple[list[str], list[list[int]]]:
    """Geomview's object file format, also with the glued headers of ModelNet40 (OFF490 518 0)."""
    text = '\n'.join(text_lines(data))
    header = re.match(r'(?:ST)?C?N?OFF\s*(\d+)\s+(\d+).*', text)
    if not header:
        raise ValueError('it does not begin with OFF and counts')
    num_vertices, num_faces = int(header[1]), int(header[2])
    lines = text[header.end() :].split('\n')[1:]
    if len(lines) != num_vertices + num_faces:
        raise ValueError(
            f'{len(lines):,} lines follow its header, which promises {num_vertices + num_faces:,}'
        )
    faces = []
    for line in lines[num_vertices:]:
        words = line.split()
        (count,) = _whole_numbers(words[:1])
        corners = words[1 : 1 + count]  # colors may follow
        if count < 0 or len(corners) < count:
            raise ValueError('a face has fewer corners than it promises')
        faces.append(_whole_numbers(corners))
    return lines[:num_vertices], faces


def _parse_obj(data: bytes) -> tuple[list[str], list[list[int]]]:
    """Wavefront's format. It has no counts, but some programs write them as comments."""
    vertices: list[str] = []
    faces: list[list[int]] = []
    for line in text_lines(data.replace(b'\\\r\n', b' ').replace(b'\\\n', b' ')):
        kind, _, rest = line.partition(' ')
        if kind == 'v':
            vertices.append(rest)
        elif kind == 'f':
            # Corners are counted from 1, or backwards from the last vertex; 0 is none.
            numbers = _whole_numbers([word.partition('/')[0] for word in rest.split()])
            faces.append([n - 1 if n >= 0 else len(vertices) + n for n in numbers])
    held = dict(vertices=len(vertices), triangles=len(faces), faces=len(faces))
    for name, count in held.items():
        comment = rf'(?mi)^#\s*(?:number of )?{name}:\s*(\d+)\s*$'
        promised = re.findall(comment, data.decode('latin-1'))
        if len(promised) == 1 and int(promised[0]) != count:
            raise ValueError(f'it promises {promised[0]} {name} and holds {count:,}')
    return vertices, faces


def _whole_numbers(words: list[str]) -> list[int]:
    try:
        return [int(word) for word in words]
    except ValueError:
        raise ValueError('a face has a corner that is no number') from None


def _is_binary_stl(data: bytes) -> bool:
    num_facets = int.from_bytes(data[80:84], 'little')
    return (
        len(data) >= _STL_HEADER and len(data) == _STL_HEADER + num_facets * _STL_FACET
    )


def _parse_stl(data: bytes) -> tuple[list[str], list[list[int]]]:
    """Stereolithography as text."""
    lines = text_lines(data.lower())
    kinds = [line.split()[0] for line in lines]
    begun, ended, corners = (kinds.count(k) for k in ('facet', 'endfacet', 'vertex'))
    is_whole = bool(kinds) and kinds[0] == 'solid' and kinds[-1] == 'endsolid'
    if not is_whole or not corners == 3 * begun == 3 * ended:
        raise ValueError('it is neither a whole binary file nor a whole text')
    vertices = []
    for kind, line in zip(kinds, lines, strict=True):
        if kind == 'vertex':
            vertices.append(line.removeprefix('vertex'))
    faces = [[i, i + 1, i + 2] for i in range(0, len(vertices), 3)]
    return vertices, faces
