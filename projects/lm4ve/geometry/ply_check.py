"""Check that a .ply file holds what its header promises, before open3d reads it.

open3d reads .ply files in C++ and trusts them: for a face that refers to a vertex
beyond the last one it reads foreign memory, a face without corners ends the process,
and of a cut file it returns the vertices that are left. So three checks come first:

1. The counts of the header are compared with the size of the file, since plyfile makes
   room for as many rows as a header promises (8 GB for a file of 180 bytes).
2. The package plyfile reads the file, and refuses what is cut.
3. The corners of each face are compared with the number of vertices.

Messages say where a file is wrong and show nothing of it.
"""

import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from plyfile import (
    PlyData,
    PlyElement,
    PlyElementParseError,
    PlyHeaderParseError,
    PlyListProperty,
)

from lm4ve.geometry.text_lines import check_last_line

#: Names of the list of a face's corners; open3d reads the first of them that there is.
_CORNERS = ('vertex_indices', 'vertex_index')
#: Tells plyfile that all faces are triangles, which it then reads at once; otherwise it
#: reads one face after the other.
_TRIANGLES = dict(face=dict.fromkeys(_CORNERS, 3))
#: Bytes. plyfile reads a header letter by letter.
_LONGEST_HEADER = 2**16


@dataclass
class PlyContent:
    """What a .ply file holds.

    Attributes:
        num_vertices (int): The number of vertices.
        columns (tuple[str, ...]): The names of the vertices' properties.
        num_corners (np.ndarray): int64 ``[F]``, the number of corners of each face.
    """

    num_vertices: int
    columns: tuple[str, ...]
    num_corners: np.ndarray


def check_ply(path: str | Path) -> PlyContent:
    """Compare a file's content with its header.

    Args:
        path (str | Path): A .ply file, text or binary.

    Returns:
        PlyContent: What it holds.

    Raises:
        ValueError: The file is cut or damaged, or has no vertices with x, y and z.
    """
    path = Path(path)
    lines = _header_lines(path)
    _check_counts(lines, path.stat().st_size)
    if any(line.split()[:2] == ['format', 'ascii'] for line in lines):
        content = _read_text(path)
    else:
        content = _read_binary(path)
    if 'vertex' not in content:
        raise ValueError('it has no vertices')
    vertices = content['vertex']
    columns = _check_vertices(vertices)
    if 'face' in content and len(content['face']) > 0:
        num_corners = _count_corners(content['face'], len(vertices))
    else:
        num_corners = np.zeros(0, np.int64)
    return PlyContent(len(vertices), columns, num_corners)


# ------------------------------------------------------- before plyfile reads a file
def _header_lines(path: Path) -> list[str]:
    """Return the lines of a header, the last one excepted.

    Raises:
        ValueError: There is no whole header, or one that plyfile and open3d could read
            in different ways, since it mixes ends of lines or has other control
            characters.
    """
    with open(path, 'rb') as file:
        header, end, _ = file.read(_LONGEST_HEADER).partition(b'\nend_header')
    if not end:
        raise ValueError('it has no whole .ply header')
    text = header.decode('latin-1')
    if text.endswith('\r'):
        lines = text.removesuffix('\r').split('\r\n')
    else:
        lines = text.split('\n')
    for number, line in enumerate(lines, 1):
        without_tabs = line.replace('\t', ' ')
        if not without_tabs.isascii() or not without_tabs.isprintable():
            raise ValueError(
                f'line {number} of its header has characters other than printable ASCII'
            )
    return lines


def _check_counts(lines: list[str], size: int) -> None:
    """Compare what a header promises with a file's size in bytes.

    Each row has a byte at least, and so has each number in it.
    """
    # The rows of the element whose properties follow.
    count = 0
    promised = 0
    for line in lines:
        words = line.split()
        if words[:1] == ['element']:
            if not words[-1].isdecimal():
                raise ValueError('an element of its header has no count')
            count = int(words[-1])
            promised = max(promised, count)
        elif words[:1] == ['property']:
            promised += count
    if promised > size:
        raise ValueError(f'its header promises more than {size:,} bytes can hold')


# ------------------------------------------------------------------- what plyfile reads
def _read_text(path: Path) -> PlyData:
    """Read a text; nothing may follow its last row."""
    data = path.read_bytes()
    check_last_line(data)
    stream = io.TextIOWrapper(io.BytesIO(data), 'ascii')
    content = _read(stream)
    if stream.read().strip():
        raise ValueError('more follows than its header promises')
    return content


def _read_binary(path: Path) -> PlyData:
    """Read a binary file; nothing may follow its last row."""
    with open(path, 'rb') as file:
        try:
            content = _read(file, known_list_len=_TRIANGLES)
        except ValueError:
            # Other polygons than triangles, or a damaged file.
            file.seek(0)
            content = _read(file)
        if file.read().strip():
            raise ValueError('more follows than its header promises')
    return content


def _read(stream: IO, **options: Any) -> PlyData:
    """Let plyfile read a file; its errors become messages that show nothing of the file."""
    try:
        with warnings.catch_warnings():
            # NumPy warns of lists without numbers.
            warnings.simplefilter('ignore')
            return PlyData.read(stream, **options)
    except PlyHeaderParseError as error:
        raise ValueError(
            f'line {error.line} of its header is none of .ply 1.0'
        ) from None
    except PlyElementParseError as error:
        raise ValueError(
            f'row {error.row + 1:,} of an element is damaged: {error.message}'
        ) from None
    except UnicodeDecodeError:
        raise ValueError('its text has characters other than ASCII') from None
    except (ValueError, OverflowError):
        raise ValueError(
            'a name is there twice, or a number does not fit its type'
        ) from None


# ------------------------------------------------------------ what plyfile lets through
def _check_vertices(vertices: PlyElement) -> tuple[str, ...]:
    """Return the names of the vertices' properties.

    Raises:
        ValueError: There is no vertex, none of them has coordinates, or a property is a
            list.
    """
    names = tuple(column.name for column in vertices.properties)
    is_list = [isinstance(column, PlyListProperty) for column in vertices.properties]
    if len(vertices) == 0 or not {'x', 'y', 'z'} <= set(names) or any(is_list):
        raise ValueError('it has no vertices with the properties x, y and z')
    return names


def _count_corners(faces: PlyElement, num_vertices: int) -> np.ndarray:
    """Return the number of corners of each face, int64 ``[F]``, after a check of all corners."""
    corners = _corners_of(faces)
    if corners.dtype == object:
        # An array of arrays: faces with several numbers of corners.
        counts = np.array([len(face) for face in corners], np.int64)
        corners = np.concatenate(corners)
    else:
        counts = np.full(len(corners), corners.shape[1], np.int64)
    if counts.min() < 1:
        raise ValueError('a face has no corners')
    if corners.min() < 0 or corners.max() >= num_vertices:
        raise ValueError('a face refers to a vertex that does not exist')
    return counts


def _corners_of(faces: PlyElement) -> np.ndarray:
    """Return the corners of each face, from the property in which open3d reads them.

    That is the first of :data:`_CORNERS` that the file has. If it is no list but a single
    number, open3d does not read the second one in its place.

    Raises:
        ValueError: There is no such property, or it is no list.
    """
    names = [name for name in _CORNERS if name in faces]
    if not names or not isinstance(faces.ply_property(names[0]), PlyListProperty):
        raise ValueError('its faces have no list vertex_indices')
    return faces[names[0]]
