"""Resize and transform RGB pictures: Pillow's pixels in a fraction of its time.

Where numba is installed, compiled kernels do the work. Where it is missing, or where a
pixel would differ, a function returns None and the caller uses Pillow.
"""

import functools
import importlib
import platform
from collections.abc import Sequence
from types import ModuleType

import cv2
import numpy as np
import PIL
from PIL import Image

_FILTERS = dict(bilinear=Image.Resampling.BILINEAR, bicubic=Image.Resampling.BICUBIC)
#: Whether the installed Pillow is 13.0 or later. Since then the pass over rows may come
#: before the pass over columns, which rounds differently; see :func:`_rows_come_first`.
SINCE_13 = int(PIL.__version__.partition('.')[0]) >= 13


@functools.cache
def kernels() -> ModuleType | None:
    """Return the module of compiled kernels, or None where they cannot be used.

    They are used only if they make the pixels of the installed Pillow. On other
    processors than x86-64 compilers fuse products and sums, which changes Pillow's own
    pixels. Another build of Pillow may round differently too, so pictures of noise are
    resized by both and compared at the first call.
    """
    if platform.machine() not in ('x86_64', 'AMD64'):
        return None
    try:
        compiled = importlib.import_module('lm4ve.pixels.kernels')
    except ImportError:  # no numba, or none for this NumPy
        return None
    if not _equal_pillow(compiled):
        return None
    return compiled


def _equal_pillow(compiled: ModuleType) -> bool:
    """Return whether kernels and Pillow resize and transform a picture of noise alike.

    Args:
        compiled (ModuleType): :mod:`lm4ve.pixels.kernels`.
    """
    noise = np.random.default_rng(0).integers(0, 256, (38, 13, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    for name, code in _FILTERS.items():
        for size in ((24, 40), (40, 24), (5, 7)):
            resized = _resize(compiled, noise, size, name, SINCE_13)
            if not np.array_equal(resized, np.asarray(picture.resize(size, code))):
                return False
    matrix = (0.9, 0.2, 1.3, -0.1, 1.1, 0.7)
    fill = (1, 2, 3)
    transformed = _transform(compiled, noise[None], matrix, fill, (0, 0, 13, 38))[0]
    expected = picture.transform(
        picture.size,
        Image.Transform.AFFINE,
        matrix,
        Image.Resampling.BICUBIC,
        fillcolor=fill,
    )
    return np.array_equal(transformed, np.asarray(expected))


def resize(
    image: np.ndarray,
    size: Sequence[int],
    interpolation: str,
    since_13: bool = SINCE_13,
) -> np.ndarray | None:
    """Resize a picture as ``PIL.Image.resize`` does.

    Args:
        image (np.ndarray): uint8 ``[H, W, 3]``; it may be a view of a larger array.
        size (Sequence[int]): Width and height.
        interpolation (str): 'bilinear' or 'bicubic'.
        since_13 (bool): Make the pixels of Pillow 13.0 and later, else those of earlier
            releases. Default: those of the installed Pillow.

    Returns:
        np.ndarray or None: A new array, uint8 ``[height, width, 3]``. None: the kernels
        do not apply, and Pillow has to resize.
    """
    if interpolation not in _FILTERS:
        return None
    if not (_is_rgb(image) and _is_size(size)):
        return None
    # Some releases before 13.0 exchange the passes for such narrow pictures.
    is_strip = image.shape[0] > 100 * image.shape[1]
    if is_strip and not since_13:
        return None
    compiled = kernels()
    if compiled is None:
        return None
    return _resize(compiled, image, size, interpolation, since_13)


def _is_rgb(image: np.ndarray) -> bool:
    """Return whether an array is an RGB picture, uint8 ``[H, W, 3]``, with at least one pixel."""
    if image.dtype != np.uint8 or image.ndim != 3:
        return False
    return image.shape[2] == 3 and image.size > 0


def _is_size(size: Sequence[int]) -> bool:
    """Return whether a size is a positive width and a positive height."""
    if len(size) != 2:
        return False
    return all(isinstance(n, (int, np.integer)) and n > 0 for n in size)


def _resize(
    compiled: ModuleType,
    image: np.ndarray,
    size: Sequence[int],
    interpolation: str,
    since_13: bool,
) -> np.ndarray:
    """Resize a picture by a pass over columns and one over rows, in Pillow's order.

    The order changes the pixels, since the first pass rounds to bytes.

    Args:
        compiled (ModuleType): :mod:`lm4ve.pixels.kernels`.
        image (np.ndarray): uint8 ``[H, W, 3]``.
        size (Sequence[int]): Width and height of the result.
        interpolation (str): 'bicubic', else bilinear.
        since_13 (bool): Use the order of Pillow 13.0 and later.

    Returns:
        np.ndarray: A new array, uint8 ``[height, width, 3]``.
    """
    is_cubic = interpolation == 'bicubic'
    height, width = image.shape[:2]
    new_width, new_height = size
    if (height, width) == (new_height, new_width):
        return image.copy()
    if since_13 and _rows_come_first(height - new_height, width - new_width):
        image = _resize_rows(compiled, image, new_height, is_cubic)
        return _resize_columns(compiled, image, new_width, is_cubic)
    image = _resize_columns(compiled, image, new_width, is_cubic)
    return _resize_rows(compiled, image, new_height, is_cubic)


def _rows_come_first(removed_rows: int, removed_columns: int) -> bool:
    """Return whether Pillow 13.0 and later resizes rows before columns.

    It does where that is less work: where both passes are needed, rows are removed, and
    more than twice as many as columns. Otherwise columns come first, as in all earlier
    releases.

    Args:
        removed_rows (int): Height before less height after; negative if rows are added.
        removed_columns (int): The same of the width.
    """
    if removed_columns == 0 or removed_rows <= 0:
        return False
    return removed_rows > 2 * removed_columns


def _resize_columns(
    compiled: ModuleType, image: np.ndarray, count: int, is_cubic: bool
) -> np.ndarray:
    """Resize the width of a picture to ``count`` columns, as rows of the transposed picture.

    A picture that has this width already is returned as it is.
    """
    if image.shape[1] == count:
        return image
    transposed = cv2.transpose(image)
    return cv2.transpose(_resize_rows(compiled, transposed, count, is_cubic))


def _resize_rows(
    compiled: ModuleType, image: np.ndarray, count: int, is_cubic: bool
) -> np.ndarray:
    """Resize the height of a picture to ``count`` rows, each a weighted sum of old ones.

    A picture that has this height already is returned as it is.
    """
    if len(image) == count:
        return image
    rows = np.ascontiguousarray(image).reshape(len(image), -1)
    out = np.empty((count, *image.shape[1:]), np.uint8)
    bounds, weights = compiled.weights_of(len(image), count, is_cubic)
    compiled.sum_rows(rows, bounds, weights, out.reshape(count, -1))
    return out


def transform(
    clip: np.ndarray, matrix: Sequence[float], fill: Sequence[int], box: Sequence[int]
) -> np.ndarray | None:
    """Transform frames as ``PIL.Image.transform`` with ``AFFINE`` and ``BICUBIC`` does.

    Args:
        clip (np.ndarray): uint8 ``[T, H, W, 3]``.
        matrix (Sequence[float]): The six numbers of Pillow's ``AFFINE``, which map a
            place of the result to a place of the frame.
        fill (Sequence[int]): RGB color of pixels whose place is outside the frame.
        box (Sequence[int]): The part of the result that is computed: left, top, right,
            bottom.

    Returns:
        np.ndarray or None: uint8 ``[T, bottom - top, right - left, 3]``. None: the
        kernels do not apply, and Pillow has to transform.
    """
    compiled = kernels()
    if compiled is None:
        return None
    return _transform(compiled, clip, matrix, fill, box)


def _transform(
    compiled: ModuleType,
    clip: np.ndarray,
    matrix: Sequence[float],
    fill: Sequence[int],
    box: Sequence[int],
) -> np.ndarray:
    """Transform frames by the kernels; see :func:`transform` for arguments and result."""
    left, top, right, bottom = map(int, box)
    out = np.empty((len(clip), bottom - top, right - left, 3), np.uint8)
    compiled.transform(
        clip, np.array(matrix, float), np.array(fill, np.uint8), top, left, out
    )
    return out
