"""Vertices and triangles of mesh files: .off, .obj, .stl and .ply.

Mesh libraries give what is left of a file that was cut, and sample foreign memory
where a face names a vertex that does not exist. Here everything that a file promises
(counts in its header, whole lines, indices below the number of vertices) is
compared with what it holds before a point is drawn. Polygons become triangles.

Readers take a file's bytes and raise :class:`ValueError` with a message that holds no
byte of the file.
"""

import re
from collections.abc import Sequence

import numpy as np

from lm4ve.tasks.base.mesh_files.triangulation import triangulate

#: Vertices float64 ``[V, 3]`` and triangles int64 ``[T, 3]``.
Mesh = tuple[np.ndarray, np.ndarray]


def check_last_line(data: bytes) -> None:
    """Refuse a text whose last line has no end: the number there may be cut.

    Raises:
        ValueError: It has none.
    """
    if data.strip() and not data.rstrip(b' \t').endswith((b'\n', b'\r')):
        raise ValueError(
            'its last line has no end, so it may be cut (if it is whole: sed -i "$a\\" FILE)'
        )


def text_lines(data: bytes) -> list[str]:
    """Lines of a text without comments and empty ones, the last one checked."""
    check_last_line(data)
    lines = (line.partition(b'#')[0].strip() for line in data.splitlines())
    return [line.decode('latin-1') for line in lines if line]


def table(lines: Sequence[str], columns: Sequence[int], dtype: type = np.float64) -> np.ndarray:
    """Columns of lines of numbers, ``[len(lines), len(columns)]``."""
    if not lines:
        return np.zeros((0, len(columns)), dtype)
    try:
        return np.loadtxt(lines, dtype, comments=None, usecols=columns, ndmin=2)
    except (ValueError, OverflowError, IndexError):
        raise ValueError(
            f'of its {len(lines):,} lines of numbers one is cut or is no number'
        ) from None


def polygons(lines: Sequence[str]) -> list[list[int]] | np.ndarray:
    """Faces ``n, index 1 ... index n`` and perhaps colors, one a line."""
    try:
        faces = table(lines, (0, 1, 2, 3), np.int64)
        if (faces[:, 0] == 3).all():
            return faces[:, 1:]
    except ValueError:
        pass  # faces with fewer than three corners, or damage, which is found below
    ragged = []
    for line in lines:
        words = line.split()
        count = number(words[0])
        if not 0 <= count < len(words):
            raise ValueError(f'a face promises {count} corners and lists {len(words) - 1}')
        ragged.append([number(word) for word in words[1 : count + 1]])
    return ragged


def number(word: str) -> int:
    """An integer of a text."""
    try:
        return int(word)
    except ValueError:
        raise ValueError('where an integer belongs there is something else') from None


def promised(counts: dict[str, int], size: int) -> None:
    """Refuse counts that a file of so many bytes or lines cannot hold."""
    if min(counts.values()) < 0 or sum(counts.values()) > size:
        text = ', '.join(f'{v:,} {k}' for k, v in counts.items())
        raise ValueError(f'its header promises {text}, which its {size:,} bytes cannot hold')


def read_off(data: bytes) -> Mesh:
    """Geomview's object file format, with glued headers as in ModelNet40 (``OFF490 518 0``)."""
    lines = text_lines(data)
    kind = re.match(r'(ST)?C?N?4?n?OFF(\s+BINARY)?', lines[0]) if lines else None
    if not kind:
        raise ValueError('it does not begin with OFF')
    if kind[2]:
        raise ValueError('it is a binary .off, which is not read')
    lines[0] = lines[0][kind.end() :]
    lines = lines if lines[0].strip() else lines[1:]
    if not lines or len(lines[0].split()) < 2:
        raise ValueError('its header lacks the numbers of vertices and faces')
    vertices, faces = (number(word) for word in lines[0].split()[:2])
    promised(dict(vertices=vertices, faces=faces), len(data))
    if len(lines) - 1 != vertices + faces:
        raise ValueError(
            f'its header promises {vertices:,} vertices and {faces:,} faces, and '
            f'{len(lines) - 1:,} lines follow'
        )
    points = table(lines[1 : vertices + 1], (0, 1, 2))
    return points, triangulate(points, polygons(lines[vertices + 1 :]))


def read_obj(data: bytes) -> Mesh:
    """Wavefront's format: vertices and faces; anything else is passed over.

    The format has no counts, so that a file that was cut between two lines is told only
    by the counts that some programs write as a comment at its top.
    """
    places, faces = [], []
    for line in text_lines(data.replace(b'\\\r\n', b' ').replace(b'\\\n', b' ')):
        kind, _, rest = line.partition(' ')
        if kind == 'v':
            places.append(rest)
        elif kind == 'f':
            corners = [number(word.partition('/')[0]) for word in rest.split()]
            if len(corners) < 3:
                raise ValueError(f'a face has {len(corners)} corners')
            # Counted from 1, or backwards from the last vertex that was listed.
            faces.append([c - 1 if c > 0 else len(places) + c if c else -1 for c in corners])
    for name, found in (
        (b'vertices', len(places)),
        (b'triangles', len(faces)),
        (b'faces', len(faces)),
    ):
        said = re.findall(rb'(?mi)^#\s*(?:number of )?' + name + rb':\s*(\d{1,18})\s*$', data)
        if len(said) == 1 and int(said[0]) != found:
            raise ValueError(f'it promises {int(said[0]):,} {name.decode()} and holds {found:,}')
    points = table(places, (0, 1, 2))
    return points, triangulate(points, faces)


def read_stl(data: bytes) -> Mesh:
    """Stereolithography, binary or text."""
    count = int.from_bytes(data[80:84], 'little')
    if len(data) >= 84 and len(data) == 84 + 50 * count:
        rows = np.frombuffer(data, [('normal', '<3f4'), ('at', '<9f4'), ('more', '<u2')], count, 84)
        points = rows['at'].reshape(-1, 3).astype(np.float64)
    elif data.lstrip()[:5].lower() == b'solid' and b'facet' in data:
        words = [line.split() for line in data.decode('latin-1').lower().splitlines()]
        words = [w for w in words if w]
        ends = sum(w[0] == 'endfacet' for w in words)
        corners = [' '.join(w[1:]) for w in words if w[0] == 'vertex']
        begins = sum(w[0] == 'facet' for w in words)
        if words[-1][0] != 'endsolid' or not len(corners) == 3 * ends == 3 * begins:
            raise ValueError(
                f'it begins {begins:,} facets and ends {ends:,}, with {len(corners):,} corners'
                + ('' if words[-1][0] == 'endsolid' else ', and lacks its last line, endsolid')
            )
        points = table(corners, (0, 1, 2))
    else:
        raise ValueError(
            f'its header promises {count:,} triangles in {84 + 50 * count:,} bytes, '
            f'it has {len(data):,}'
        )
    return points, np.arange(len(points)).reshape(-1, 3)
