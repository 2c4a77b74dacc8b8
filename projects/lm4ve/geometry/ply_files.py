"""Reads .ply files, meshes and clouds, by the package plyfile, which refuses what is cut.

plyfile makes room for as many rows as a header promises, 8 GB for a file of 180 bytes, so
the counts of the header are compared with the size of the file first. Messages say where
a file is wrong and show nothing of it.
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

from lm4ve.geometry.mesh_formats import MeshContent
from lm4ve.geometry.text_lines import check_last_line

#: Names of the list of a face's corners; the first of them that there is counts.
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
        mesh (MeshContent): Its vertices and faces; a cloud has no faces.
        colors (np.ndarray, optional): float64 ``[V, 3]``, red, green and blue of each
            vertex as in the file; None without them.
    """

    mesh: MeshContent
    colors: np.ndarray | None


def read_ply(path: str | Path) -> PlyContent:
    """Read a file.

    Args:
        path (str | Path): A .ply file, text or binary.

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
    points = _columns_of(vertices, ('x', 'y', 'z'))
    if points is None or len(points) == 0:
        raise ValueError('it has no vertices with the properties x, y and z')
    colors = _columns_of(vertices, ('red', 'green', 'blue'))
    corners = np.zeros(0, np.int64)
    num_corners = np.zeros(0, np.int64)
    if 'face' in content and len(content['face']) > 0:
        corners, num_corners = _read_faces(content['face'])
    return PlyContent(MeshContent(points, corners, num_corners), colors)


# ------------------------------------------------------- before plyfile reads a file
def _header_lines(path: Path) -> list[str]:
    """Return the lines of a header, the last one excepted.

    Raises:
        ValueError: There is no whole header, or one that is read in another way here than
            by plyfile, since it mixes ends of lines or has other control characters.
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


# -------------------------------------------------------------------- what a file holds
def _columns_of(vertices: PlyElement, names: tuple[str, ...]) -> np.ndarray | None:
    """Return three properties of the vertices, float64 ``[V, 3]``; None without all of them.

    Raises:
        ValueError: One of them is a list.
    """
    columns = [column for column in vertices.properties if column.name in names]
    if len(columns) < len(names):
        return None
    if any(isinstance(column, PlyListProperty) for column in columns):
        raise ValueError(f'a vertex has a list in the place of {", ".join(names)}')
    return np.stack([vertices[name] for name in names], axis=1).astype(np.float64)


def _read_faces(faces: PlyElement) -> tuple[np.ndarray, np.ndarray]:
    """Return the corners of all faces, one face after the other, and how many each has."""
    corners = _corners_of(faces)
    if corners.dtype == object:
        # An array of arrays: faces with several numbers of corners.
        num_corners = np.array([len(face) for face in corners], np.int64)
        return np.concatenate(corners).astype(np.int64), num_corners
    num_corners = np.full(len(corners), corners.shape[1], np.int64)
    return corners.astype(np.int64).ravel(), num_corners


def _corners_of(faces: PlyElement) -> np.ndarray:
    """Return the corners of each face, from the first of :data:`_CORNERS` that there is.

    Raises:
        ValueError: There is no such property, or it is no list.
    """
    names = [name for name in _CORNERS if name in faces]
    if not names or not isinstance(faces.ply_property(names[0]), PlyListProperty):
        raise ValueError('its faces have no list vertex_indices')
    return faces[names[0]]
