"""Check that a .ply file holds what its header promises, before open3d reads it.

open3d reads .ply files in C++ and trusts them: a face that refers to a vertex beyond the last
one reads foreign memory, and a face without corners ends the process. A cut file gives the
vertices that are left. So the header is read here, each element is counted, and the corners of
each face are compared with the number of vertices. The numbers themselves are open3d's to read.
Messages say where a file is wrong and show nothing of it.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lm4ve.tasks.base.text_lines import text_lines

_SCALARS = {
    'char': 'i1',
    'uchar': 'u1',
    'short': 'i2',
    'ushort': 'u2',
    'int': 'i4',
    'uint': 'u4',
    'float': 'f4',
    'double': 'f8',
    'int8': 'i1',
    'uint8': 'u1',
    'int16': 'i2',
    'uint16': 'u2',
    'int32': 'i4',
    'uint32': 'u4',
    'float32': 'f4',
    'float64': 'f8',
}
_BYTE_ORDERS = dict(ascii='=', binary_little_endian='<', binary_big_endian='>')
#: Names of the list of a face's corners.
_CORNERS = ('vertex_indices', 'vertex_index')


@dataclass
class Property:
    """A column of an element.

    Attributes:
        name (str): Its name.
        dtype (np.dtype): The type of its numbers.
        count_dtype (np.dtype, optional): Of a list, the type of its length.
    """

    name: str
    dtype: np.dtype
    count_dtype: np.dtype | None = None


@dataclass
class Element:
    """A table of a .ply file: ``count`` rows with the same properties."""

    name: str
    count: int
    properties: list[Property] = field(default_factory=list)

    @property
    def has_lists(self) -> bool:
        return any(p.count_dtype is not None for p in self.properties)


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
    data = Path(path).read_bytes()
    header, end, body = data.partition(b'\nend_header')
    line_end = re.match(rb'\r?\n', body)
    if not end or not line_end:
        raise ValueError('it has no whole .ply header')
    encoding, elements = _read_header(header.decode('latin-1').splitlines())
    body = body[line_end.end() :]
    vertices = _element(elements, 'vertex')
    columns = tuple(p.name for p in vertices.properties)
    if not vertices.count or not {'x', 'y', 'z'} <= set(columns) or vertices.has_lists:
        raise ValueError('it has no vertices with the properties x, y and z')
    faces = _element(elements, 'face')
    if faces.count and not any(p.name in _CORNERS and p.count_dtype for p in faces.properties):
        raise ValueError('its faces have no list vertex_indices')
    if encoding == 'ascii':
        corners = _check_text(body, elements)
    else:
        corners = _check_binary(body, elements)
    num_corners = _count_corners(corners, vertices.count)
    return PlyContent(vertices.count, columns, num_corners)


def _element(elements: list[Element], name: str) -> Element:
    for element in elements:
        if element.name == name:
            return element
    return Element(name, 0)


# ------------------------------------------------------------------------- the header
def _read_header(lines: list[str]) -> tuple[str, list[Element]]:
    """Return the encoding and the elements; every line must be known."""
    if len(lines) < 2 or lines[0] != 'ply':
        raise ValueError("it does not begin with 'ply'")
    encoding = re.fullmatch(r'format (\w+) 1\.0', lines[1].strip())
    if not encoding or encoding[1] not in _BYTE_ORDERS:
        raise ValueError('its format is none of .ply 1.0')
    elements: list[Element] = []
    for number, line in enumerate(lines[2:], 3):
        words = line.split()
        if not words or words[0] in ('comment', 'obj_info'):
            continue
        if words[0] == 'element' and len(words) == 3 and words[2].isdecimal():
            if _element(elements, words[1]).properties:
                raise ValueError(f'line {number} of its header repeats an element')
            elements.append(Element(words[1], int(words[2])))
        elif words[0] == 'property' and elements:
            column = _read_property(words, _BYTE_ORDERS[encoding[1]])
            if column is None:
                raise ValueError(f'line {number} of its header has no property of .ply 1.0')
            elements[-1].properties.append(column)
        else:
            raise ValueError(f'line {number} of its header is none of .ply 1.0')
    for position, element in enumerate(elements, 1):
        names = [p.name for p in element.properties]
        if len(set(names)) < len(names) or not names:
            raise ValueError(f'element {position} of its header has no properties, or one twice')
    return encoding[1], elements


def _read_property(words: list[str], byte_order: str) -> Property | None:
    """Return the property of a header's line, None if it is of an unknown type."""
    is_list = words[1:2] == ['list']
    kinds = words[2:-1] if is_list else words[1:-1]
    if len(kinds) != (2 if is_list else 1) or not set(kinds) <= set(_SCALARS):
        return None
    order: Any = byte_order
    dtypes = [np.dtype(_SCALARS[kind]).newbyteorder(order) for kind in kinds]
    if not is_list:
        return Property(words[-1], dtypes[0])
    if dtypes[0].kind == 'f':  # the length of a list
        return None
    return Property(words[-1], dtypes[1], dtypes[0])


# --------------------------------------------------------------------------- the body
def _check_text(body: bytes, elements: list[Element]) -> Iterable[np.ndarray]:
    """Check that each row is a line of as many words; return the corners of each face."""
    lines = text_lines(body)
    if len(lines) != sum(element.count for element in elements):
        raise ValueError(f'{len(lines):,} lines follow its header, which promises others')
    rows = iter(lines)
    corners = []
    for element in elements:
        for number in range(1, element.count + 1):
            try:
                lists = _read_row(next(rows).split(), element)
            except (ValueError, IndexError):
                raise ValueError(f'row {number:,} of an element is damaged') from None
            if element.name == 'face':
                corners.append(lists)
    return corners


def _read_row(words: list[str], element: Element) -> np.ndarray:
    """Return a row's list of corners, if it has one.

    Raises:
        ValueError, IndexError: The row has too many or too few numbers, or none.
    """
    corners = np.zeros(0, np.int64)
    at = 0
    for column in element.properties:
        if column.count_dtype is None:
            float(words[at])
            at += 1
            continue
        count = int(words[at])
        if count < 0:
            raise ValueError('a negative length')
        values = words[at + 1 : at + 1 + count]
        at += 1 + count
        if column.name in _CORNERS:
            corners = np.array([int(word) for word in values], np.int64)
    if at != len(words):
        raise ValueError('too many or too few numbers')
    return corners


def _check_binary(body: bytes, elements: list[Element]) -> Iterable[np.ndarray]:
    """Check that the body ends with the last row; return the corners of faces."""
    at = 0
    corners: Iterable[np.ndarray] = []
    for element in elements:
        if not element.has_lists:
            at += element.count * sum(p.dtype.itemsize for p in element.properties)
            continue
        found, at = _read_lists(body, at, element)
        if element.name == 'face':
            corners = found
    if at > len(body):
        raise ValueError(f'{len(body):,} bytes follow its header, which promises {at:,}')
    if body[at:].strip():
        raise ValueError('more follows than its header promises')
    return corners


def _read_lists(body: bytes, at: int, element: Element) -> tuple[Iterable[np.ndarray], int]:
    """Return the corners of faces, and where the element ends."""
    if not element.count:
        return [], at
    same = _lists_of_one_length(body, at, element)
    if same is not None:
        name = next((p.name for p in element.properties if p.name in _CORNERS), None)
        corners: Iterable[np.ndarray] = same[name] if name else []
        return corners, at + same.nbytes
    lists = []
    for _ in range(element.count):
        for column in element.properties:
            count = 1
            if column.count_dtype is not None:
                count = int(np.frombuffer(body, column.count_dtype, 1, at)[0])
                at += column.count_dtype.itemsize
            if count < 0 or at + count * column.dtype.itemsize > len(body):
                raise ValueError('it ends within a list, or a list has a negative length')
            if column.name in _CORNERS:
                lists.append(np.frombuffer(body, column.dtype, count, at))
            at += count * column.dtype.itemsize
    return lists, at


def _lists_of_one_length(body: bytes, at: int, element: Element) -> np.ndarray | None:
    """Return the rows as one array if all lists are as long as the first row's, else None.

    This holds for triangles, and is a hundred times as fast as to go from list to list.
    """
    fields: list[tuple] = []
    start = at
    for column in element.properties:
        if column.count_dtype is None:
            fields.append((column.name, column.dtype))
            at += column.dtype.itemsize
            continue
        if at + column.count_dtype.itemsize > len(body):
            return None
        count = int(np.frombuffer(body, column.count_dtype, 1, at)[0])
        size = column.count_dtype.itemsize + count * column.dtype.itemsize
        if count < 0 or at + size > len(body):
            return None
        fields.append((f'length of {column.name}', column.count_dtype))
        fields.append((column.name, column.dtype, (count,)))
        at += size
    row = np.dtype(fields)
    if start + element.count * row.itemsize > len(body):
        return None
    rows = np.frombuffer(body, row, element.count, start)
    lengths = [rows[name] for name in row.names or () if name.startswith('length of ')]
    if any((length != length[0]).any() for length in lengths):
        return None
    return rows


def _count_corners(corners: Iterable[np.ndarray], num_vertices: int) -> np.ndarray:
    """Return the number of corners of each face, int64 ``[F]``, all of which must exist."""
    if isinstance(corners, np.ndarray):
        counts = np.full(len(corners), corners.shape[1], np.int64)
        flat = corners.reshape(-1)
    else:
        corners = list(corners)
        counts = np.array([len(c) for c in corners], np.int64)
        flat = np.concatenate([np.zeros(0, np.int64), *corners])
    if len(counts) and counts.min() < 1:
        raise ValueError('a face has no corners')
    if len(flat) and not (0 <= flat.min() and flat.max() < num_vertices):
        raise ValueError('a face refers to a vertex that does not exist')
    return counts
