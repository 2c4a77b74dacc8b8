"""Reads a user's pictures as the configs read theirs.

An encoder's features of a picture in another channel order, or with another treatment
of transparency, are poor in silence.
"""

import io
from pathlib import Path

import numpy as np
from mmengine import fileio
from PIL import Image, ImageOps

from lm4ve.data.image_files import decode_pixels, find_defect, open_image
from lm4ve.errors import UserError
from lm4ve.files import is_storage_error

#: Pillow's modes of 32 bits a pixel and channel, which have no agreed range of values.
_MODES_OF_32_BITS = ('I', 'F')


class DamagedPictureError(UserError):
    """A picture cannot be decoded."""


def read_picture(path: str | Path) -> Image.Image:
    """Read a picture as 8-bit RGB, with the pixels that the configs read from its file.

    It is turned upright by its EXIF tag, gray is repeated, CMYK converted, 16 bits are
    cut to their upper 8, and transparency is dropped (:func:`decode_pixels`).

    Args:
        path (str | Path): A file, or an entry of a shard.

    Raises:
        DamagedPictureError: The content cannot be decoded, or has pixels of 32 bits.
        OSError: The file cannot be read; another try may succeed.
    """
    data = fileio.get(str(path))
    try:
        return _decode(data)
    except MemoryError:
        raise
    except Exception as e:  # Pillow's decoders raise anything
        raise DamagedPictureError(
            f"The picture '{path}' cannot be decoded ({e})."
        ) from e


def _decode(data: bytes) -> Image.Image:
    """Decode the content of a picture's file to 8-bit RGB; see :func:`read_picture`.

    Raises:
        Exception: Whatever Pillow raises for a damaged file; an ``OSError`` for pixels of
            32 bits.
    """
    with open_image(io.BytesIO(data)) as file:
        picture = ImageOps.exif_transpose(file)
    if picture.mode.startswith('I;16'):
        upper_bits = np.asarray(picture) >> 8
        picture = Image.fromarray(upper_bits.astype(np.uint8))
    if picture.mode in _MODES_OF_32_BITS:
        raise OSError('pixels of 32 bits')
    if picture.has_transparency_data:
        # OpenCV drops transparency, as in the configs' pipelines.
        bgr = decode_pixels(data)
        if bgr is not None:
            return Image.fromarray(np.ascontiguousarray(bgr[..., ::-1]))
    return picture.convert('RGB')


def find_damage_in_file(path: str) -> str | None:
    """Return why a file has no picture, as far as that shows without decoding, or None.

    Of a JPEG, the header and both ends are read: what is wrong between them is found when
    the picture is decoded. A PNG is read whole, since it has checksums. Other formats are
    decoded. :func:`read_picture` refuses the same files.

    Args:
        path (str): A local file. Its bytes decide its format, not its name.

    Returns:
        str or None: The defect, worded to follow the file's name, or None.

    Raises:
        OSError, StorageError: Storage does not give the file.

    Measured on one CPU core at 500 x 375: 0.07 ms a JPEG, which takes 0.9 ms to decode;
    0.23 ms a PNG, which takes 5.9 ms.
    """
    defect = find_defect(path, opencv=False)
    if defect is not None:
        return defect
    try:
        with open_image(path) as picture:
            mode = picture.mode
            picture.verify()
    except MemoryError:
        raise
    except Exception as e:  # Pillow's decoders raise anything
        if is_storage_error(e):
            raise
        return f'cannot be decoded ({e})'
    if mode in _MODES_OF_32_BITS:
        return 'has pixels of 32 bits'
    return None


def picture_of_array(pixels: np.ndarray, dataset: str) -> Image.Image:
    """Turn the pixels that a data set gives into a picture in RGB.

    Args:
        pixels (np.ndarray): uint8 ``[H, W]`` or ``[H, W, 3]``.
        dataset (str): The name of the data set's class, which decides the channels'
            order.
    """
    if pixels.ndim == 3 and not holds_rgb(dataset):
        pixels = pixels[..., ::-1]  # mmcv's order is BGR
    return Image.fromarray(pixels).convert('RGB')


def holds_rgb(dataset: str) -> bool:
    """Return whether a data set's samples hold pixels in RGB; else they are in BGR.

    Among mmpretrain's data sets, only those of CIFAR hold RGB.

    Args:
        dataset (str): The name of the data set's class, perhaps with its module.
    """
    class_name = dataset.rpartition('.')[2]
    return class_name.startswith('CIFAR')
