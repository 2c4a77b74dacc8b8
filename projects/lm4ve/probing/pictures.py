"""Pictures of a user, read in the way in which the configs read theirs.

An encoder's features of a picture in another channel order, or with another treatment
of transparency, are poor in silence.
"""

import io
from pathlib import Path

import numpy as np
from mmengine import fileio
from PIL import Image, ImageOps

from lm4ve.data.image_files import decode_pixels, open_image
from lm4ve.errors import UserError


class DamagedPictureError(UserError):
    """A picture cannot be decoded."""


def read_picture(path: str | Path) -> Image.Image:
    """Read a picture of any format of :func:`open_image`, in 8-bit RGB.

    As the configs do: turned upright by its EXIF tag, gray repeated, CMYK converted, 16
    bits cut to their upper 8, transparency dropped (:func:`decode_pixels`).

    Raises:
        DamagedPictureError: It cannot be decoded, or has pixels of 32 bits.
        OSError: The file cannot be read, which may pass.
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
    """Decode a file's content; see :func:`read_picture`."""
    with open_image(io.BytesIO(data)) as file:
        picture = ImageOps.exif_transpose(file)
    if picture.mode.startswith('I;16'):
        upper_bits = np.asarray(picture) >> 8
        picture = Image.fromarray(upper_bits.astype(np.uint8))
    if picture.mode in ('I', 'F'):
        raise OSError('pixels of 32 bits')
    if picture.has_transparency_data:
        bgr = decode_pixels(data)
        if bgr is not None:
            return Image.fromarray(np.ascontiguousarray(bgr[..., ::-1]))
    return picture.convert('RGB')


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
    """Return whether a class of data sets gives arrays in RGB.

    Of mmpretrain's, only those of CIFAR do.
    """
    class_name = dataset.rpartition('.')[2]
    return class_name.startswith('CIFAR')
