"""Pillow's resizing and moving of RGB pictures: the same pixels in a fraction of the time.

They take most of the time of our input pipelines. Where numba is installed, compiled
kernels do their work; where it is missing, or a pixel would differ, Pillow does.
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
#: Since 13.0 Pillow's vertical pass comes first where that is less work: other
#: roundings.
SINCE_13 = int(PIL.__version__.partition('.')[0]) >= 13


@functools.cache
def kernels() -> ModuleType | None:
    """Return the compiled kernels, or None where they are not to be had.

    On other processors than x86-64 compilers fuse products and sums, and Pillow's own
    pixels differ by that. Another build of Pillow may round in another way too, so
    pictures of noise are compared first.
    """
    if platform.machine() not in ('x86_64', 'AMD64'):
        return None
    try:
        found = importlib.import_module('lm4ve.compat.pillow_kernels')
    except ImportError:  # no numba, or none for this NumPy
        return None
    return found if _agrees(found) else None


def _agrees(found: ModuleType) -> bool:
    """Compare kernels with the installed Pillow."""
    noise = np.random.default_rng(0).integers(0, 256, (38, 13, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    for name, code in _FILTERS.items():
        for size in (24, 40), (40, 24), (5, 7):
            expected = np.asarray(picture.resize(size, code))
            if not np.array_equal(
                _resize(found, noise, size, name, SINCE_13), expected
            ):
                return False
    matrix, fill = (0.9, 0.2, 1.3, -0.1, 1.1, 0.7), (1, 2, 3)
    affine, bicubic = Image.Transform.AFFINE, Image.Resampling.BICUBIC
    moved = picture.transform(picture.size, affine, matrix, bicubic, fillcolor=fill)
    ours = _move(found, noise[None], matrix, fill, (0, 0, 13, 38))[0]
    return np.array_equal(ours, np.asarray(moved))


def resize(
    image: np.ndarray,
    size: Sequence[int],
    interpolation: str,
    since_13: bool = SINCE_13,
) -> np.ndarray | None:
    """Resize a picture as ``PIL.Image.resize`` does.

    Args:
        image (np.ndarray): uint8 ``[H, W, 3]``; it may be a part of another.
        size (Sequence[int]): Width and height.
        interpolation (str): 'bilinear' or 'bicubic'.
        since_13 (bool): The order of the passes, Pillow 13.0's or that of those before.
            Default: the installed Pillow's.

    Returns:
        np.ndarray or None: A new uint8 array. None: Pillow has to do this.
    """
    usual = (
        image.dtype == np.uint8
        and image.ndim == 3
        and image.shape[2] == 3
        and image.size
    )
    whole = len(size) == 2 and all(
        isinstance(n, (int, np.integer)) and n > 0 for n in size
    )
    # Some releases before 13.0 turn the passes round for such strips.
    strip = not since_13 and usual and image.shape[0] > 100 * image.shape[1]
    found = (
        kernels()
        if usual and whole and not strip and interpolation in _FILTERS
        else None
    )
    return (
        None if found is None else _resize(found, image, size, interpolation, since_13)
    )


def _resize(found, image, size, interpolation, since_13):
    """Resize by two passes along the first axis, one of them on the transposed picture."""
    (height, width), (new_width, new_height) = image.shape[:2], size
    if (height, width) == (new_height, new_width):
        return image.copy()
    cubic = interpolation == 'bicubic'
    if (
        since_13
        and width != new_width
        and height - new_height > max(0, 2 * (width - new_width))
    ):
        image = _resize_rows(found, image, new_height, cubic)
    if width != new_width:
        image = cv2.transpose(
            _resize_rows(found, cv2.transpose(image), new_width, cubic)
        )
    return _resize_rows(found, image, new_height, cubic)


def _resize_rows(found, image, count, cubic):
    if len(image) == count:
        return image
    rows = np.ascontiguousarray(image).reshape(len(image), -1)
    out = np.empty((count, *image.shape[1:]), np.uint8)
    found.sum_rows(
        rows, *found.weights_of(len(image), count, cubic), out.reshape(count, -1)
    )
    return out


def move(
    clip: np.ndarray, matrix: Sequence[float], fill: Sequence[int], box: Sequence[int]
) -> np.ndarray | None:
    """Move all frames as ``PIL.Image.transform`` with ``AFFINE`` and ``BICUBIC`` does.

    Args:
        clip (np.ndarray): uint8 ``[T, H, W, 3]``.
        matrix (Sequence[float]): The six numbers that Pillow's ``AFFINE`` takes.
        fill (Sequence[int]): RGB of what comes in at the borders.
        box (Sequence[int]): The part of the result that is drawn: left, top, right,
            bottom.

    Returns:
        np.ndarray or None: uint8 ``[T, bottom - top, right - left, 3]``. None: Pillow
            has to
        do this.
    """
    found = kernels()
    return None if found is None else _move(found, clip, matrix, fill, box)


def _move(found, clip, matrix, fill, box):
    left, top, right, bottom = map(int, box)
    out = np.empty((len(clip), bottom - top, right - left, 3), np.uint8)
    found.move(clip, np.array(matrix, float), np.array(fill, np.uint8), top, left, out)
    return out
