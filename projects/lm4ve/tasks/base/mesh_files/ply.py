"""The Polygon File Format (.ply), text and binary: a cloud or a mesh, checked."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from lm4ve.tasks.base.mesh_files.off_obj_stl import (
    Mesh,
    number,
    polygons,
    promised,
    table,
    text_lines,
)
from lm4ve.tasks.base.mesh_files.triangulation import triangulate

_TYPES = dict(char='i1', uchar='u1', short='i2', ushort='u2', int='i4', uint='u4')
_TYPES |= dict(float='f4', double='f8', int8='i1', uint8='u1', int16='i2', uint16='u2')
_TYPES |= dict(int32='i4', uint32='u4', float32='f4', float64='f8')
_INDICES = ('vertex_indices', 'vertex_index')


@dataclass
class _Element:
    count: int
    #: Name, type, and the type of the length of a list.
    properties: list[tuple[str, str, str | None]] = field(default_factory=list)

    def place(self, name: str) -> int:
        names = [p[0] for p in self.properties]
        if name not in names:
            raise ValueError(f'its vertices lack the property {name}')
        return names.index(name)


def read_ply(data: bytes, columns: Sequence[str] = 'xyz') -> Mesh:
    """Vertices, and triangles (none of a cloud).

    Args:
        data (bytes): The file's content.
        columns (Sequence[str]): Properties of the vertices to read, coordinates first.

    Returns:
        Mesh: Vertices float64 ``[V, len(columns)]`` and triangles int64 ``[T, 3]``.

    Raises:
        ValueError: The file is cut, damaged, or lacks a property.
    """
    head, end, body = data.partition(b'end_header')
    eol, _, body = body.partition(b'\n')
    if not data.startswith(b'ply') or not end or eol.strip():
        raise ValueError('its header has no begin or no end')
    style, elements = _header(head.decode('latin-1'))
    if 'vertex' not in elements:
        raise ValueError('its header has no element vertex')
    if elements.get('tristrips'):
        raise ValueError('it holds triangle strips, which are not read')
    promised({k: e.count for k, e in elements.items()}, len(body))
    read = _text if style == 'ascii' else _binary
    order = '<' if style.endswith('little_endian') else '>'
    points, faces = read(body, elements, order, columns)
    return points, triangulate(points[:, :3], faces)


def _header(text: str) -> tuple[str, dict[str, _Element]]:
    style, elements, last = '', {}, None
    for words in (line.split() for line in text.splitlines()[1:]):
        match words:
            case ['format', ('ascii' | 'binary_little_endian' | 'binary_big_endian') as style, *_]:
                pass
            case ['element', name, count]:
                last = elements[name] = _Element(number(count))
            case ['property', 'list', size, kind, name] if last and {size, kind} <= _TYPES.keys():
                last.properties.append((name, _TYPES[kind], _TYPES[size]))
            case ['property', kind, name] if last and kind in _TYPES:
                last.properties.append((name, _TYPES[kind], None))
            case [] | ['comment' | 'obj_info', *_]:
                pass
            case _:
                raise ValueError('its header has a line that is none of the format')
    if not style:
        raise ValueError('its header names no format')
    return style, elements


def _text(body: bytes, elements: dict[str, _Element], _: str, columns: Sequence[str]) -> tuple:
    lines = text_lines(body)
    total = sum(e.count for e in elements.values())
    if len(lines) != total:
        raise ValueError(f'its header promises {total:,} lines, {len(lines):,} follow')
    points, faces = np.zeros((0, len(columns))), []
    for name, element in elements.items():
        mine, lines = lines[: element.count], lines[element.count :]
        if name == 'vertex':
            points = table(mine, [element.place(c) for c in columns])
        elif name == 'face' and mine:
            faces = polygons([_from_indices(line, element) for line in mine])
    return points, faces


def _from_indices(line: str, element: _Element) -> str:
    """The part of a face's line that begins with its list of corners."""
    if element.properties and element.properties[0][0] in _INDICES:
        return line
    words = line.split()
    for name, _, size in element.properties:
        if name in _INDICES:
            return ' '.join(words) or '-1'
        words = words[1 + (number(words[0]) if size and words else 0) :]
    raise ValueError('its faces have no list of vertices')


def _binary(
    body: bytes, elements: dict[str, _Element], order: str, columns: Sequence[str]
) -> tuple:
    points, faces, start = np.zeros((0, len(columns))), [], 0
    for name, element in elements.items():
        rows, start = _rows(body, start, element, order)
        if name == 'vertex':
            for column in columns:
                element.place(column)
            points = np.stack(
                [
                    np.asarray([r[c] for r in rows]) if isinstance(rows, list) else rows[c]
                    for c in columns
                ],
                axis=1,
            ).astype(np.float64)
        elif name == 'face' and element.count:
            key = next((p[0] for p in element.properties if p[0] in _INDICES and p[2]), None)
            if key is None:
                raise ValueError('its faces have no list of vertices')
            faces = rows[key] if isinstance(rows, np.ndarray) else [r[key] for r in rows]
    if body[start:].strip():
        raise ValueError(f'{len(body) - start:,} bytes follow what its header promises')
    return points, faces


def _rows(body: bytes, start: int, element: _Element, order: str) -> tuple:
    """Rows of an element as an array, or as dicts where lists differ in length."""

    def take(kind: str, count: int, at: int) -> np.ndarray:
        dtype = np.dtype(order + kind)
        if not 0 <= count * dtype.itemsize <= len(body) - at:
            raise ValueError('it ends before what its header promises')
        return np.frombuffer(body, dtype, count, at)

    def one(at: int) -> tuple[dict, int]:
        row = {}
        for name, kind, size in element.properties:
            count = 1
            if size:
                count = int(take(size, 1, at)[0])
                at += np.dtype(size).itemsize
            values = take(kind, count, at)
            at += values.nbytes
            row[name] = values if size else values[0]
        return row, at

    if not element.count:
        return np.zeros(0, [(p[0], p[1]) for p in element.properties]), start
    first, _ = one(start)
    fields = []
    for name, kind, size in element.properties:
        fields += [(f'{name}#', order + size)] if size else []
        fields.append((name, order + kind, (len(first[name]),)) if size else (name, order + kind))
    dtype = np.dtype(fields)
    if element.count * dtype.itemsize <= len(body) - start:
        rows = np.frombuffer(body, dtype, element.count, start)
        lists = [p[0] for p in element.properties if p[2]]
        if all((rows[f'{name}#'] == len(first[name])).all() for name in lists):
            return rows, start + rows.nbytes
    rows = []
    for _ in range(element.count):
        row, start = one(start)
        rows.append(row)
    return rows, start
