"""The Point Cloud Library's format (.pcd), which open3d reads after a check of its header.

open3d trusts the header: what a cut file lacks is read as zeros or as foreign memory.
"""

import re
from pathlib import Path

import numpy as np

from lm4ve.geometry.open3d_library import load_open3d
from lm4ve.geometry.text_lines import text_lines

_SIZES = dict(F=(4, 8), I=(1, 2, 4, 8), U=(1, 2, 4, 8))
#: Lines of a header, in this order, and whether they may be missing.
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
        np.ndarray: ``[N, 3]``, in the type in which they are stored.

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
    return points


def check_pcd(data: bytes) -> int:
    """Compare a file's content with its header, and return the number of points.

    Raises:
        ValueError: The file is cut or damaged, or has no fields x, y and z.
    """
    before, keyword, rest = data.partition(b'\nDATA ')
    style, line_end, body = rest.partition(b'\n')
    lines = text_lines(before + b'\n')
    lines = [' '.join(line.split()) for line in lines]
    text = '\n'.join([*lines, 'DATA ' + style.decode('latin-1').strip()])
    header = _HEADER.fullmatch(text)
    if not keyword or not line_end or not header:
        raise ValueError('it has no whole .pcd header')
    names = header['fields'].split()
    sizes = [int(word) for word in header['size'].split()]
    kinds = header['type'].split()
    counts = [int(word) for word in (header['count'] or '1 ' * len(names)).split()]
    _check_fields(names, sizes, kinds, counts)
    num_points = int(header['width']) * int(header['height'])
    if num_points < 1 or header['points'] not in (None, str(num_points)):
        raise ValueError('its numbers of points, width and height do not fit')
    if header['data'] == 'ascii':
        _check_text(body, num_points, sum(counts))
    else:
        row = sum(size * count for size, count in zip(sizes, counts, strict=True))
        is_packed = header['data'] == 'binary_compressed'
        _check_binary(body, num_points * row, is_packed)
    return num_points


def _check_fields(
    names: list[str], sizes: list[int], kinds: list[str], counts: list[int]
) -> None:
    if not len(names) == len(sizes) == len(kinds) == len(counts):
        raise ValueError('its header describes some fields only')
    fields = zip(sizes, kinds, counts, strict=True)
    for number, (size, kind, count) in enumerate(fields, 1):
        if size not in _SIZES.get(kind, ()) or count < 1:
            raise ValueError(f'field {number} of its header has an unknown type')
    for axis in 'xyz':
        if names.count(axis) != 1 or counts[names.index(axis)] != 1:
            raise ValueError(f"it has not one field '{axis}' of one number")


def _check_text(body: bytes, num_points: int, num_words: int) -> None:
    lines = text_lines(body)
    if len(lines) != num_points:
        raise ValueError(
            f'its header promises {num_points:,} points, {len(lines):,} lines follow'
        )
    for number, line in enumerate(lines, 1):
        words = line.split()
        if len(words) != num_words or not all(map(_is_number, words)):
            # open3d takes what it cannot read for 0.
            raise ValueError(f'point {number:,} has not {num_words} numbers')


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _check_binary(body: bytes, size: int, is_packed: bool) -> None:
    found = len(body)
    if is_packed:
        packed, unpacked = np.frombuffer(body, '<u4', 2).tolist()
        if unpacked != size:
            raise ValueError(
                f'its data hold {unpacked:,} bytes, and its points are {size:,}'
            )
        size, found = packed, len(body) - 8
    if found < size:
        raise ValueError(f'its header promises {size:,} bytes, and {found:,} follow')
