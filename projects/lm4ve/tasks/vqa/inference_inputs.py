"""The images that a user gives to an inferencer: files, folders or arrays.

All of it is checked before anything is computed.
"""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from lm4ve.errors import UserError, listing
from lm4ve.tasks.base.image_files import find_defect
from lm4ve.tasks.vqa import IMAGE_SUFFIXES

Image = str | Path | np.ndarray


def list_images(images: Image | Sequence[Image]) -> list[Image]:
    """Return images, those of a folder by their names, after all were looked at.

    Args:
        images (str | Path | np.ndarray | Sequence): Files, a folder, arrays uint8 ``[H, W,
            3]`` (BGR), or a list of files and arrays.

    Raises:
        UserError: There is none, or one cannot be read.
    """
    found = [images] if isinstance(images, (str, Path, np.ndarray)) else list(images)
    if len(found) == 1 and isinstance(found[0], (str, Path)) and Path(found[0]).is_dir():
        folder = Path(found[0])
        found = sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        raise UserError(f'There is no image ({", ".join(IMAGE_SUFFIXES)}) in {images}.')
    wrong = []
    for image in found:
        if not isinstance(image, np.ndarray):
            defect = find_defect(str(image), decode=True)
            wrong += [f"'{image}' {defect}"] if defect else []
        elif image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
            wrong.append(f'an array is {image.dtype} {list(image.shape)}, expected uint8 [H, W, 3]')
    if wrong:
        raise UserError(f'Images cannot be read: {listing(wrong, 3)}.')
    return found


def name_of(image: Image) -> str:
    """Return what an image is called: its path, or 'array'."""
    return 'array' if isinstance(image, np.ndarray) else str(image)


def pixels_of_file(image: Image) -> np.ndarray:
    """Return an image as uint8 ``[H, W, 3]``, RGB."""
    pixels = image if isinstance(image, np.ndarray) else cv2.imread(str(image))
    return np.ascontiguousarray(pixels[..., ::-1])
