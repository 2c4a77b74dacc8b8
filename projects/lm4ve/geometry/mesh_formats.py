"""Parsers of the mesh formats .off, .obj and .stl, for :mod:`lm4ve.geometry.mesh_files`.

A parser compares the counts that a file holds with its content. Whether corners exist is
checked later, for all formats alike.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lm4ve.geometry.text_lines import text_lines

#: The first line of an .off file and its counts. ModelNet40 glues them (OFF490 518 0).
_OFF_HEADER = re.compile(r'(?:ST)?C?N?OFF\s*(\d+)\s+(\d+).*')


#: Bytes of a binary .stl file before its facets, and what each facet holds.
_STL_HEADER = 84
_STL_FACET = np.dtype(
    [('normal', '<f4', 3), ('corners', '<f4', (3, 3)), ('attribute', '<u2')]
)


class MeshContent(NamedTuple):
    """What a file of a mesh holds.

    Attributes:
        points (np.ndarray): float64 ``[V, 3]``, the vertices.
        corners (np.ndarray): int64, the vertices at the corners of all faces, one face
            after the other, counted from 0.
        num_corners (np.ndarray): int64 ``[F]``, how many of them each face has.
    """

    points: np.ndarray
    corners: np.ndarray
    num_corners: np.ndarray


def parse_off(data: bytes) -> MeshContent:
    """Parse Geomview's object file format.

    A header with the counts of vertices and faces, in one line or two, is followed by a
    line for each vertex and then one for each face. Comments and empty lines do not
    count.

    Raises:
        ValueError: There is no such header, lines are missing or too many, or a face is
            damaged.
    """
    text = '\n'.join(text_lines(data))
    header = _OFF_HEADER.match(text)
    if not header:
        raise ValueError('it does not begin with OFF and counts')
    num_vertices = int(header[1])
    num_faces = int(header[2])
    # The header ends with its line: the first part is empty.
    _, *lines = text[header.end() :].split('\n')
    if len(lines) != num_vertices + num_faces:
        raise ValueError(
            f'{len(lines):,} lines follow its header, which promises '
            f'{num_vertices + num_faces:,}'
        )
    vertices = lines[:num_vertices]
    faces = [_parse_off_face(line) for line in lines[num_vertices:]]
    return _mesh_of(vertices, faces)


def _parse_off_face(line: str) -> list[int]:
    """Return the corners of a line 'count corner corner ...'; colors may follow."""
    words = line.split()
    (count,) = _whole_numbers(words[:1])
    corners = words[1 : 1 + count]
    if count < 0 or len(corners) < count:
        raise ValueError('a face has fewer corners than it promises')
    return _whole_numbers(corners)


def parse_obj(data: bytes) -> MeshContent:
    """Parse Wavefront's format. It has no counts, but some programs write them as comments."""
    # A line may be continued behind a backslash.
    joined = data.replace(b'\\\r\n', b' ').replace(b'\\\n', b' ')
    vertices: list[str] = []
    faces: list[list[int]] = []
    for line in text_lines(joined):
        keyword, _, rest = line.partition(' ')
        if keyword == 'v':
            vertices.append(rest)
        elif keyword == 'f':
            faces.append(_parse_obj_face(rest, len(vertices)))
    comments = data.decode('latin-1')
    _check_promise(comments, 'vertices', len(vertices))
    _check_promise(comments, 'triangles', len(faces))
    _check_promise(comments, 'faces', len(faces))
    return _mesh_of(vertices, faces)


def _parse_obj_face(text: str, num_vertices: int) -> list[int]:
    """Return the corners of a face 'v/vt/vn v/vt/vn ...', of which only v counts.

    Args:
        text (str): What follows the keyword.
        num_vertices (int): How many vertices come before the face in the file.
    """
    numbers = _whole_numbers([word.partition('/')[0] for word in text.split()])
    corners = []
    for number in numbers:
        if number < 0:
            # Counted backwards from the last vertex.
            corners.append(num_vertices + number)
        else:
            # Counted from 1; 0 becomes -1, which no vertex has.
            corners.append(number - 1)
    return corners


def _check_promise(comments: str, noun: str, count: int) -> None:
    """Compare a count with the one that a file's comments promise, as '# vertices: 8' does.

    A file that several programs have written, or with several objects, may promise several
    counts, of which none need be that of the whole: these are not compared.

    Raises:
        ValueError: There is one promise, of another count, so that the file may be cut.
    """
    pattern = rf'(?mi)^#\s*(?:number of )?{noun}:\s*(\d+)\s*$'
    promises = [int(number) for number in re.findall(pattern, comments)]
    if len(promises) == 1 and promises[0] != count:
        raise ValueError(f'it promises {promises[0]:,} {noun} and holds {count:,}')


def parse_stl(data: bytes) -> MeshContent:
    """Parse stereolithography, binary or text: triangles, each with corners of its own."""
    if _is_binary_stl(data):
        facets = np.frombuffer(data, _STL_FACET, offset=_STL_HEADER)
        return _separate_triangles(facets['corners'].reshape(-1, 3).astype(np.float64))
    lines = text_lines(data.lower())
    keywords = [line.split()[0] for line in lines]
    if not _is_whole_stl(keywords):
        raise ValueError('it is neither a whole binary file nor a whole text')
    vertices = []
    for keyword, line in zip(keywords, lines, strict=True):
        if keyword == 'vertex':
            vertices.append(line.removeprefix('vertex'))
    return _separate_triangles(_read_coordinates(vertices))


def _is_binary_stl(data: bytes) -> bool:
    """Return whether a file has the size that its count of facets promises."""
    if len(data) < _STL_HEADER:
        return False
    num_facets = int.from_bytes(data[80:84], 'little')
    return len(data) == _STL_HEADER + num_facets * _STL_FACET.itemsize


def _separate_triangles(points: np.ndarray) -> MeshContent:
    """Return a mesh of which each three vertices are a triangle."""
    return MeshContent(points, np.arange(len(points)), np.full(len(points) // 3, 3))


def _is_whole_stl(keywords: list[str]) -> bool:
    """Return whether lines of these keywords are a solid of whole triangles."""
    if not keywords or keywords[0] != 'solid' or keywords[-1] != 'endsolid':
        return False
    num_facets = keywords.count('facet')
    if keywords.count('endfacet') != num_facets:
        return False
    return keywords.count('vertex') == 3 * num_facets


def _whole_numbers(words: list[str]) -> list[int]:
    """Return the corners of a face as numbers; ValueError if a word is none."""
    try:
        return [int(word) for word in words]
    except ValueError:
        # Without the word: messages show nothing of a file.
        raise ValueError('a face has a corner that is no number') from None


def _mesh_of(vertices: Sequence[str], faces: Sequence[Sequence[int]]) -> MeshContent:
    """Return a mesh of lines 'x y z', which more may follow, and the corners of each face."""
    corners = [corner for face in faces for corner in face]
    num_corners = [len(face) for face in faces]
    return MeshContent(
        _read_coordinates(vertices),
        np.array(corners, np.int64),
        np.array(num_corners, np.int64),
    )


def _read_coordinates(vertices: Sequence[str]) -> np.ndarray:
    """Return the coordinates of lines 'x y z', float64 ``[V, 3]``."""
    if not vertices or not all(line.strip() for line in vertices):
        raise ValueError('it has no vertices, or one without coordinates')
    try:
        return np.loadtxt(vertices, usecols=(0, 1, 2), comments=None, ndmin=2)
    except ValueError:
        # NumPy's message shows a part of the file.
        raise ValueError('a vertex has not three numbers') from None
