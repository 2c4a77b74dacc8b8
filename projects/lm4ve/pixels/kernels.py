"""Kernels of Pillow's resizing and affine transforms of RGB pictures, compiled by numba.

They repeat Pillow's arithmetic (``src/libImaging/Resample.c``, ``Geometry.c``),
rounding included, with whole rows or all frames of a clip in the inner loop. The order
and the types of operations are Pillow's, since others would round differently. Use them
through :mod:`lm4ve.pixels.resample`, which compares them with the installed Pillow.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit, types

#: Pillow's weights are integers: real weights times 2 ** _BITS, rounded.
_BITS = 22
_ROWS = types.Array(types.uint8, 2, 'C', readonly=True)
_CLIP = types.Array(types.uint8, 4, 'A', readonly=True)


def _compiled(signature: Any) -> Callable:
    """Return a decorator that compiles a function for one signature, and caches the machine code.

    numba writes it beside this file, else to the user's cache folder, by processor, and
    replaces files atomically. If both are read-only, each process compiles.

    Args:
        signature: numba's types of the result and of the arguments.
    """

    def compile(function: Callable) -> Callable:
        try:
            return njit(signature, cache=True, nogil=True)(function)
        except Exception:
            # The cache cannot be written or read. If compiling failed, it fails again.
            return njit(signature, nogil=True)(function)

    return compile


@_compiled(types.float64(types.float64, types.b1))
def _filter(x, cubic):
    """Return Pillow's resampling kernel at a distance from its center.

    Args:
        x (float): The distance, at least 0, in pixels of the smaller of the two pictures.
        cubic (bool): The bicubic kernel (a = -0.5), else the triangle of bilinear.

    Returns:
        float: The weight, before weights are divided by their sum.
    """
    if not cubic:
        return 1.0 - x if x < 1.0 else 0.0
    if x < 1.0:
        return ((-0.5 + 2.0) * x - (-0.5 + 3.0)) * x * x + 1
    if x < 2.0:
        return (((x - 5) * x + 8) * x - 4) * -0.5
    return 0.0


@_compiled(
    types.Tuple((types.int32[:, ::1], types.int32[:, ::1]))(
        types.intp, types.intp, types.b1
    )
)
def weights_of(size, target, cubic):
    """Compute which inputs each output of a resized row or column sums, and with which weights.

    Args:
        size (int): The number of inputs.
        target (int): The number of outputs.
        cubic (bool): See :func:`_filter`.

    Returns:
        tuple[np.ndarray, np.ndarray]: Index of the first input and number of inputs,
        int32 ``[target, 2]``; and weights in units of ``2 ** -_BITS``, int32 ``[target,
        most inputs]``, zero behind the number of inputs.
    """
    scale = size / target
    stretch = max(scale, 1.0)
    support = (2.0 if cubic else 1.0) * stretch
    shrink = 1.0 / stretch
    count = int(math.ceil(support)) * 2 + 1
    bounds = np.zeros((target, 2), np.int32)
    fixed = np.zeros((target, count), np.int32)
    real = np.zeros(count)
    for i in range(target):
        center = (i + 0.5) * scale
        first = max(int(center - support + 0.5), 0)
        n = min(int(center + support + 0.5), size) - first
        total = 0.0
        for k in range(n):
            real[k] = _filter(abs((k + first - center + 0.5) * shrink), cubic)
            total += real[k]
        for k in range(n):
            weight = real[k] / total if total != 0.0 else real[k]
            half = -0.5 if weight < 0 else 0.5
            fixed[i, k] = int(half + weight * (1 << _BITS))
        bounds[i] = first, n
    return bounds, fixed


@_compiled(
    types.void(_ROWS, types.int32[:, ::1], types.int32[:, ::1], types.uint8[:, ::1])
)
def sum_rows(rows, bounds, weights, out):
    """Fill each row of ``out`` with a weighted sum of rows, rounded and clipped to bytes.

    Args:
        rows (np.ndarray): uint8 ``[H, N]``.
        bounds (np.ndarray): From :func:`weights_of`, one entry for each row of ``out``.
        weights (np.ndarray): From :func:`weights_of`.
        out (np.ndarray): uint8 ``[H', N]``.
    """
    n = rows.shape[1]
    sums = np.empty(n, np.int32)
    for y in range(out.shape[0]):
        first, count = bounds[y]
        for j in range(n):
            sums[j] = 1 << (_BITS - 1)  # one half, so that the shift below rounds
        for k in range(count):
            row = rows[first + k]
            weight = weights[y, k]
            for j in range(n):
                sums[j] += np.int32(row[j]) * weight
        for j in range(n):
            out[y, j] = np.uint8(min(max(sums[j] >> _BITS, 0), 255))


@_compiled(
    types.void(
        types.uint8[:, :, ::1],
        types.float64,
        types.float64,
        types.float64[:, ::1],
        types.uint8[::1],
    )
)
def _interpolate(source, x_in, y_in, rows, out):
    """Interpolate bicubically at one place, along four rows and then along the columns.

    Through each four neighboring values v0 to v3 goes Pillow's cubic, at the distance d
    from v1: v1 + d * (p1 + d * (p2 + d * p3)), with p1 = v2 - v0 and p2, p3 below. The
    result is clipped to 0..255, and its fraction is cut off as in Pillow.

    At d = 0 the cubic is v1 exactly. This is frequent (in a shear or shift, one of the
    distances always is), so then the other values are not read.

    Args:
        source (np.ndarray): uint8 ``[H, W, L]``. All L values of a pixel are
            interpolated alike.
        x_in (float): The place, in columns from the center of the first one.
        y_in (float): The place, in rows from the center of the first one.
        rows (np.ndarray): Scratch space for the values of the four rows at ``x_in``,
            float64 ``[4, L]``. Row 1 is the one at or above the place.
        out (np.ndarray): Gets the values at the place, uint8 ``[L]``.
    """
    height, width, lanes = source.shape
    x = int(math.floor(x_in))
    y = int(math.floor(y_in))
    dx = x_in - x
    dy = y_in - y
    # Places beyond the border have the value of the border.
    x0 = min(max(x - 1, 0), width - 1)
    x1 = min(max(x, 0), width - 1)
    x2 = min(max(x + 1, 0), width - 1)
    x3 = min(max(x + 2, 0), width - 1)
    if dy:
        first_row = 0
        end_row = 4
    else:
        first_row = 1
        end_row = 2
    for r in range(first_row, end_row):
        line = rows[r]
        row = min(max(y - 1 + r, 0), height - 1)
        a = source[row, x0]
        b = source[row, x1]
        c = source[row, x2]
        d = source[row, x3]
        if dx:
            for j in range(lanes):
                # Sums of bytes are integers in Pillow; below, sums of rows are doubles.
                v0 = np.int32(a[j])
                v1 = np.int32(b[j])
                v2 = np.int32(c[j])
                v3 = np.int32(d[j])
                p2 = np.float64(2 * (v0 - v1) + v2 - v3)
                p3 = np.float64(v1 - v0 + v3 - v2)
                line[j] = v1 + dx * (np.float64(v2 - v0) + dx * (p2 + dx * p3))
        else:
            for j in range(lanes):
                line[j] = b[j]
    if dy:
        for j in range(lanes):
            v0 = rows[0, j]
            v1 = rows[1, j]
            v2 = rows[2, j]
            v3 = rows[3, j]
            p2 = 2 * (v0 - v1) + v2 - v3
            p3 = -v0 + v1 - v2 + v3
            value = v1 + dy * ((-v0 + v2) + dy * (p2 + dy * p3))
            out[j] = np.uint8(min(max(value, 0.0), 255.0))
    else:
        for j in range(lanes):
            out[j] = np.uint8(min(max(rows[1, j], 0.0), 255.0))


@_compiled(
    types.void(
        _CLIP,
        types.float64[::1],
        types.uint8[::1],
        types.intp,
        types.intp,
        types.uint8[:, :, :, ::1],
    )
)
def transform(clip, matrix, fill, top, left, out):
    """Fill ``out`` with a box of a clip's affinely transformed frames.

    The frames are first copied to ``[H, W, 3 * T]``, so that a place and its distances
    are computed once for all frames.

    Args:
        clip (np.ndarray): uint8 ``[T, H, W, 3]``.
        matrix (np.ndarray): Six numbers a to f, float64: the pixel with center (x, y) of
            the result is taken from (a x + b y + c, d x + e y + f) of the frame.
        fill (np.ndarray): RGB color of pixels that are taken from outside the frame.
        top (int): First row of the box in the transformed frames.
        left (int): First column of the box in the transformed frames.
        out (np.ndarray): uint8 ``[T, height, width, 3]`` of the box.
    """
    count, height, width = clip.shape[:3]
    lanes = 3 * count
    source = np.empty((height, width, lanes), np.uint8)
    for y in range(height):
        for t in range(count):
            for x in range(width):
                for c in range(3):
                    source[y, x, 3 * t + c] = clip[t, y, x, c]
    line = np.empty((out.shape[2], lanes), np.uint8)
    rows = np.empty((4, lanes))
    for y in range(out.shape[1]):
        for x in range(out.shape[2]):
            x_in = (
                matrix[0] * (x + left + 0.5) + matrix[1] * (y + top + 0.5) + matrix[2]
            )
            y_in = (
                matrix[3] * (x + left + 0.5) + matrix[4] * (y + top + 0.5) + matrix[5]
            )
            if x_in < 0.0 or x_in >= width or y_in < 0.0 or y_in >= height:
                for j in range(lanes):
                    line[x, j] = fill[j % 3]
            else:
                _interpolate(source, x_in - 0.5, y_in - 0.5, rows, line[x])
        for t in range(count):
            for x in range(out.shape[2]):
                for c in range(3):
                    out[t, y, x, c] = line[x, 3 * t + c]
