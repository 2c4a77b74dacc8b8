"""Vertices and triangles of mesh files (.off, .obj, .stl, .ply), which are refused if cut.

Mesh libraries return what is left of a cut file: trimesh 5.2 accepts 27 of 60 cut .off files, 34
of 40 cut text .ply files and 39 of 40 cut .stl files. Here the counts of a file's header are
compared with its content, and no face may refer to a vertex that does not exist.
"""

import io
import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lm4ve.tasks.base.meshes import Mesh

_STL_FACET = np.dtype([('normal', '<f4', 3), ('corners', '<f4', (3, 3)), ('attribute', '<u2')])
#: Of a polygon that is not convex; the time to cut it grows with the cube.
_MOST_CORNERS = 300
_PLY_CORNERS = ('vertex_indices', 'vertex_index')


def read_mesh(path: str | Path) -> Mesh:
    """Read a mesh; polygons become triangles.

    Args:
        path (str | Path): A file ending in .off, .obj, .stl or .ply.

    Returns:
        Mesh: Vertices float64 ``[V, 3]`` and triangles int64 ``[T, 3]``, none of a .ply file
        that holds a cloud.

    Raises:
        ValueError, LookupError, OverflowError, MemoryError: The file is cut or damaged.
    """
    suffix = Path(path).suffix.lower()
    if suffix == '.ply':
        return read_ply(path)
    data = Path(path).read_bytes()
    points, polygons = {'.off': _read_off, '.obj': _read_obj, '.stl': _read_stl}[suffix](data)
    return points, _triangulate(points, polygons)


def read_ply(path: str | Path, columns: Sequence[str] = 'xyz') -> Mesh:
    """Read the named properties of the vertices, ``[V, len(columns)]``, and the triangles.

    Raises:
        ValueError, LookupError, MemoryError: The file is cut or damaged, or lacks a property.
    """
    from plyfile import PlyData, PlyElementParseError, PlyParseError  # for this format only

    head, end, body = Path(path).read_bytes().partition(b'end_header')
    try:
        if b'format ascii' in head:
            # A text's numbers are read in full.
            head = re.sub(rb'\bfloat(32)?\b', b'double', head)
            ply = PlyData.read(io.BytesIO(head + end + body))
            whole = len(text_lines(body)) == sum(element.count for element in ply)
        else:
            with open(path, 'rb') as file:
                try:  # triangles can be mapped, which is a hundred times as fast
                    known = dict(face=dict.fromkeys(_PLY_CORNERS, 3))
                    ply = PlyData.read(file, known_list_len=known)
                except PlyElementParseError:
                    file.seek(0)
                    ply = PlyData.read(file)
                whole = not file.read().strip()
    except PlyParseError as e:
        raise ValueError(str(e)) from e
    if not whole:
        raise ValueError('more follows than its header promises')
    vertices = np.stack([ply['vertex'][c] for c in columns], axis=1).astype(np.float64)
    faces = ply['face'].data if 'face' in ply else np.zeros(0, [(_PLY_CORNERS[0], 'i4')])
    name = next(n for n in _PLY_CORNERS if n in faces.dtype.names)
    return vertices, _triangulate(vertices, faces[name])


def _read_off(data: bytes) -> tuple[np.ndarray, Any]:
    """Geomview's object file format, also with the glued headers of ModelNet40 (OFF490 518 0)."""
    text = '\n'.join(text_lines(data))
    header = re.match(r'(?:ST)?C?N?OFF\s*(\d+)\s+(\d+).*', text)
    if not header:
        raise ValueError('it does not begin with OFF and counts')
    lines, vertices = text[header.end() :].split('\n')[1:], int(header[1])
    if len(lines) != vertices + int(header[2]):
        raise ValueError(f'{len(lines):,} lines follow its header, {header[0]}')
    polygons = []
    for line in lines[vertices:]:
        count, *corners = line.split()
        polygons.append([int(corners[i]) for i in range(int(count))])
    return _coordinates(lines[:vertices]), polygons


def _read_obj(data: bytes) -> tuple[np.ndarray, Any]:
    """Wavefront's format. It has no counts, but some programs write them as comments."""
    vertices: list[str] = []
    polygons = []
    for line in text_lines(data.replace(b'\\\r\n', b' ').replace(b'\\\n', b' ')):
        kind, _, rest = line.partition(' ')
        if kind == 'v':
            vertices.append(rest)
        elif kind == 'f':
            corners = [int(word.partition('/')[0]) for word in rest.split()]
            # Counted from 1, or backwards from the last vertex; 0 is out of range.
            polygons.append([c - 1 if c >= 0 else len(vertices) + c for c in corners])
    held = dict(vertices=len(vertices), triangles=len(polygons), faces=len(polygons))
    for name, count in held.items():
        comment = rf'(?mi)^#\s*(?:number of )?{name}:\s*(\d+)\s*$'
        promised = re.findall(comment, data.decode('latin-1'))
        if len(promised) == 1 and int(promised[0]) != count:
            raise ValueError(f'it promises {promised[0]} {name} and holds {count:,}')
    return _coordinates(vertices), polygons


def _read_stl(data: bytes) -> tuple[np.ndarray, Any]:
    """Stereolithography, binary or text."""
    count = int.from_bytes(data[80:84], 'little')
    if len(data) >= 84 and len(data) == 84 + count * _STL_FACET.itemsize:
        facets = np.frombuffer(data, _STL_FACET, count, 84)
        points = facets['corners'].reshape(-1, 3).astype(np.float64)
    else:
        lines = text_lines(data.lower())
        kinds = [line.split()[0] for line in lines]
        begun, ended, corners = (kinds.count(k) for k in ('facet', 'endfacet', 'vertex'))
        if [kinds[0], kinds[-1]] != ['solid', 'endsolid'] or not corners == 3 * begun == 3 * ended:
            raise ValueError('it is neither a whole binary file nor a whole text')
        vertices = zip(kinds, lines, strict=True)
        points = _coordinates([line.removeprefix(k) for k, line in vertices if k == 'vertex'])
    return points, np.arange(len(points)).reshape(-1, 3)


def _triangulate(points: np.ndarray, polygons: Any) -> np.ndarray:
    """Cut polygons into triangles, int64 ``[T, 3]``, those of few corners first.

    Convex ones become fans, others are cut ear by ear; fewer than three corners have no surface.
    """
    if isinstance(polygons, np.ndarray) and polygons.ndim == 2:
        groups = {polygons.shape[1]: polygons} if len(polygons) else {}
    else:
        polygons = sorted(polygons, key=len)
        groups = {size: list(group) for size, group in itertools.groupby(polygons, len)}
    triangles = [np.zeros((0, 3), np.int64)]
    for size in sorted(groups.keys() - {0, 1, 2}):
        group = np.array(groups[size], np.int64)
        if not 0 <= group.min() <= group.max() < len(points):
            raise ValueError('a face refers to a vertex that does not exist')
        convex = _are_convex(points[group]) if size > 3 else np.ones(len(group), bool)
        fan = [(0, i, i + 1) for i in range(1, size - 1)]
        triangles.append(group[convex][:, fan].reshape(-1, 3))
        triangles += [polygon[_ears(points[polygon])] for polygon in group[~convex]]
    return np.concatenate(triangles)


def _normals(rings: np.ndarray) -> np.ndarray:
    """Normals ``[M, 3]`` of polygons ``[M, n, 3]``, by Newell's method."""
    from_first = rings - rings[:, :1]
    return np.cross(from_first, np.roll(from_first, -1, axis=1)).sum(axis=1)


def _are_convex(rings: np.ndarray) -> np.ndarray:
    turns = np.cross(rings - np.roll(rings, 1, axis=1), np.roll(rings, -1, axis=1) - rings)
    return (np.einsum('mnc,mc->mn', turns, _normals(rings)) >= 0).all(axis=1)


def _ears(ring: np.ndarray) -> list[tuple[int, int, int]]:
    """Cut a simple polygon ``[n, 3]`` into ``n - 2`` triangles that lie inside of it."""
    if len(ring) > _MOST_CORNERS:
        raise ValueError(f'a face that is not convex has more than {_MOST_CORNERS} corners')
    normal = _normals(ring[None])[0]

    def turn(a: int, b: int, c: Any) -> Any:
        return np.cross(ring[b] - ring[a], ring[c] - ring[a]) @ normal

    left, triangles = list(range(len(ring))), []
    while len(left) > 3:
        for i, b in enumerate(left):
            a, c = left[i - 1], left[(i + 1) % len(left)]
            apart = (ring[left][:, None] != ring[[a, b, c]]).any(axis=2).all(axis=1)
            others = np.array(left)[apart]
            sides = turn(a, b, others), turn(b, c, others), turn(c, a, others)
            if turn(a, b, c) > 0 and not (np.min(sides, axis=0) >= 0).any():
                break  # b is an ear: no other corner is inside
        triangles.append((a, b, c))
        left.remove(b)
    return [*triangles, (left[0], left[1], left[2])]


def _coordinates(lines: Sequence[str]) -> np.ndarray:
    return np.loadtxt(lines or ['0 0 0'], usecols=(0, 1, 2), comments=None, ndmin=2)[: len(lines)]


def text_lines(data: bytes) -> list[str]:
    """Lines of a text, without comments and empty ones.

    Raises:
        ValueError: The last line has no end, so its last number may be cut.
    """
    if data.strip() and not data.rstrip(b' \t').endswith((b'\n', b'\r')):
        raise ValueError(
            'its last line has no end, so it may be cut (if it is whole: sed -i "$a\\" FILE)'
        )
    lines = (line.partition(b'#')[0].strip() for line in data.splitlines())
    return [line.decode('latin-1') for line in lines if line]
