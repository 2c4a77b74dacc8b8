"""The Point Cloud Library's format (.pcd): text, binary and compressed, checked."""

import struct

import numpy as np

from lm4ve.tasks.base.mesh_files.off_obj_stl import number, promised, table, text_lines

_KINDS = dict(F='f', I='i', U='u')


def read_pcd(data: bytes) -> np.ndarray:
    """Points ``[N, 3]`` of a file's bytes, in the type in which they are stored.

    Raises:
        ValueError: The file is cut, or not of this format.
    """
    header, style, body = _header(data)
    if style is None:
        raise ValueError('its header is cut, or it is no .pcd file: it has no points')
    names = header.get('FIELDS', header.get('COLUMNS', []))
    counts = [number(w) for w in header.get('COUNT', ['1'] * len(names))]
    kinds = [
        _KINDS.get(w, '?') + size for w, size in zip(header['TYPE'], header['SIZE'], strict=True)
    ]
    if not set('xyz') <= set(names) or not len(names) == len(counts) == len(kinds):
        raise ValueError('its header does not describe the fields x, y and z')
    points = number(header['POINTS'][0]) if 'POINTS' in header else None
    size = number(header['WIDTH'][0]) * number(header['HEIGHT'][0])
    if size != (size if points is None else points):
        raise ValueError(f'its header promises {points:,} points and a grid of {size:,}')
    if style == 'ascii':
        lines = text_lines(body)
        if len(lines) != size:
            raise ValueError(f'its header promises {size:,} points, {len(lines):,} lines follow')
        starts = np.cumsum([0, *counts])
        # Every column is read: a line that was cut lacks some.
        return table(lines, range(starts[-1]))[:, [starts[names.index(a)] for a in 'xyz']]
    # Fields without data are all called '_'.
    fields = [(f'{i}', '<' + k, (c,)) for i, (k, c) in enumerate(zip(kinds, counts, strict=True))]
    row = np.dtype(fields)
    at = [names.index(axis) for axis in 'xyz']
    if style == 'binary':
        promised(dict(points=size), len(body) // row.itemsize)
        rows = np.frombuffer(body, row, size)
        return np.stack([rows[f'{i}'][:, 0] for i in at], axis=1)
    packed, whole = struct.unpack_from('<II', body)
    if whole != size * row.itemsize or packed > len(body) - 8:
        raise ValueError(f'its header promises {size:,} points, its data are shorter')
    raw = _decompress(body[8 : 8 + packed], whole)
    starts = [size * row.fields[f'{i}'][1] for i in at]
    columns = [
        np.frombuffer(raw, row[f'{i}'].base, size * counts[i], start)[:: counts[i]]
        for i, start in zip(at, starts, strict=True)
    ]
    return np.stack(columns, axis=1)


def _header(data: bytes) -> tuple[dict[str, list[str]], str | None, bytes]:
    header: dict[str, list[str]] = {}
    while data:
        line, end, data = data.partition(b'\n')
        key, *words = line.decode('latin-1').split() or ['#']
        if key == 'DATA' and end and words:
            if words[0] not in ('ascii', 'binary', 'binary_compressed'):
                raise ValueError('its data are neither ascii, binary nor binary_compressed')
            return header, words[0], data
        header[key] = words
    return header, None, b''


def _decompress(data: bytes, size: int) -> bytes:
    """LZF: runs of literal bytes, and copies of what came before."""
    out, i = bytearray(), 0
    while i < len(data) and len(out) <= size:
        control = data[i]
        i += 1
        if control < 32:
            out += data[i : i + control + 1]
            i += control + 1
            continue
        length = control >> 5
        if length == 7:
            length += data[i]
            i += 1
        start = len(out) - ((control & 31) << 8) - data[i] - 1
        i += 1
        length += 2
        if start < 0:
            raise ValueError('its compressed data are damaged')
        while length > 0:  # a copy may overlap what it writes
            piece = out[start : start + length]
            out += piece
            start, length = start + len(piece), length - len(piece)
    if len(out) != size:
        raise ValueError('its compressed data are damaged')
    return bytes(out)
