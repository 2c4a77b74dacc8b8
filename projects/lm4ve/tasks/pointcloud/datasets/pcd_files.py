"""The Point Cloud Library's format (.pcd), which open3d reads after a check of its header.

open3d trusts the header: what a cut file lacks is read as zeros or as foreign memory.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lm4ve.geometry.open3d_library import load_open3d
from lm4ve.geometry.text_lines import text_lines

#: Type of a field (floating point, signed, unsigned) -> the bytes that it may have.
_SIZES = dict(F=(4, 8), I=(1, 2, 4, 8), U=(1, 2, 4, 8))
#: The lines of a header in their order; optional ones may be missing.
_HEADER = re.compile(
    r'(VERSION (?P<version>\S+)\n)?'
    r'(FIELDS|COLUMNS) (?P<fields>[^\n]+)\n'
    r'SIZE (?P<size>[\d ]+)\n'
    r'TYPE (?P<type>[FIU ]+)\n'
    r'(COUNT (?P<count>[\d ]+)\n)?'
    r'WIDTH (?P<width>\d+)\n'
    r'HEIGHT (?P<height>\d+)\n'
    r'(VIEWPOINT [^\n]+\n)?'
    r'(POINTS (?P<points>\d+)\n)?'
    r'DATA (?P<data>ascii|binary|binary_compressed)'
)


def read_pcd(path: str | Path) -> np.ndarray:
    """Read the points of a .pcd file.

    Args:
        path (str | Path): Text, binary or compressed.

    Returns:
        np.ndarray: ``[N, 3]``, in the type in which they are stored. Without NaN, by
            which the format marks what a sensor did not see.

    Raises:
        ValueError: The file is cut or damaged, or has no fields x, y and z.
    """
    num_points = check_pcd(Path(path).read_bytes())
    # Its older reader, o3d.io, takes doubles for floats.
    cloud = load_open3d().t.io.read_point_cloud(str(path), format='pcd')
    if 'positions' not in cloud.point:
        raise ValueError('its data are damaged')
    points = cloud.point['positions'].numpy()
    if len(points) != num_points:
        raise ValueError(f'{len(points):,} of its {num_points:,} points can be read')
    is_seen = ~np.isnan(points).any(axis=1)
    return points[is_seen]


def check_pcd(data: bytes) -> int:
    """Compare a file's content with its header, and return the number of points.

    Raises:
        ValueError: The file is cut or damaged, or has no fields x, y and z.
    """
    header, body = _split(data)
    fields = _parse_fields(header)
    num_points = int(header['width']) * int(header['height'])
    if num_points < 1 or header['points'] not in (None, str(num_points)):
        raise ValueError('its numbers of points, width and height do not fit')
    if header['data'] == 'ascii':
        _check_text(body, num_points, sum(field.count for field in fields))
        return num_points
    size = num_points * sum(field.size * field.count for field in fields)
    if header['data'] == 'binary':
        _check_size(len(body), size)
    else:
        _check_compressed(body, size)
    return num_points


def _split(data: bytes) -> tuple[re.Match[str], bytes]:
    """Return the parsed header of a file, and what follows it."""
    before, keyword, rest = data.partition(b'\nDATA ')
    style, line_end, body = rest.partition(b'\n')
    lines = [' '.join(line.split()) for line in text_lines(before + b'\n')]
    lines.append('DATA ' + style.decode('latin-1').strip())
    header = _HEADER.fullmatch('\n'.join(lines))
    if not keyword or not line_end or not header:
        raise ValueError('it has no whole .pcd header')
    return header, body


@dataclass(frozen=True)
class _Field:
    """A field of each point: its name, the bytes of a number, its type, and how many."""

    name: str
    size: int
    type: str
    count: int


def _parse_fields(header: re.Match[str]) -> list[_Field]:
    """Return the fields that a header describes, among which are x, y and z."""
    names = header['fields'].split()
    sizes = header['size'].split()
    types = header['type'].split()
    counts = header['count'].split() if header['count'] else ['1'] * len(names)
    if not len(names) == len(sizes) == len(types) == len(counts):
        raise ValueError('its header describes some fields only')
    fields = []
    for name, size, type_, count in zip(names, sizes, types, counts, strict=True):
        fields.append(_Field(name, int(size), type_, int(count)))
    for number, field in enumerate(fields, start=1):
        if field.size not in _SIZES.get(field.type, ()) or field.count < 1:
            raise ValueError(f'field {number} of its header has an unknown type')
    for axis in 'xyz':
        counts_of_axis = [field.count for field in fields if field.name == axis]
        if counts_of_axis != [1]:
            raise ValueError(f"it has not one field '{axis}' of one number")
    return fields


def _check_text(body: bytes, num_points: int, num_words: int) -> None:
    """Refuse a text without a line of so many numbers for each point."""
    lines = text_lines(body)
    if len(lines) != num_points:
        raise ValueError(
            f'its header promises {num_points:,} points, {len(lines):,} lines follow'
        )
    for number, line in enumerate(lines, start=1):
        words = line.split()
        # open3d takes what it cannot read for 0.
        if len(words) != num_words or not all(_is_number(word) for word in words):
            raise ValueError(f'point {number:,} has not {num_words} numbers')


def _is_number(word: str) -> bool:
    """Return whether a word is a number; NaN and infinity count."""
    try:
        float(word)
    except ValueError:
        return False
    return True


def _check_compressed(body: bytes, size: int) -> None:
    """Refuse compressed data that are cut, or of another size than the points."""
    compressed_size, own_size = np.frombuffer(body, '<u4', 2).tolist()
    if own_size != size:
        raise ValueError(
            f'its data hold {own_size:,} bytes, and its points are {size:,}'
        )
    # The two sizes themselves have eight bytes.
    _check_size(len(body) - 8, compressed_size)


def _check_size(num_bytes: int, promised: int) -> None:
    """Refuse fewer bytes of data than the header promises."""
    if num_bytes < promised:
        raise ValueError(
            f'its header promises {promised:,} bytes, and {num_bytes:,} follow'
        )
