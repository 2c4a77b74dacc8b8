"""Reads image files, and finds damaged ones, which decoders do not always report.

Many builds of OpenCV return a truncated JPEG with a gray lower part and no error (4.14
refuses it), so a broken download would be trained on. All tasks that read images use
this check.
"""

import io
from typing import Any

import cv2
import numpy as np
from mmengine import fileio
from mmengine.fileio import LocalBackend
from PIL import Image, UnidentifiedImageError

from lm4ve.data.integrity import IntegrityMixin
from lm4ve.errors import UserError
from lm4ve.files import is_file, is_storage_error

_JPEG = b'\xff\xd8\xff'
#: The first and the last bytes of a JPEG and of a PNG. Inside a JPEG's pixel data the
#: end marker cannot occur, so a file cut anywhere does not end with it.
_ENDS = {_JPEG: b'\xff\xd9', b'\x89PNG\r\n\x1a\n': b'IEND\xaeB`\x82'}
_LENGTH = 8
#: How files of phones go on after four bytes, also where they are called ``.jpg``.
_HEIC = (b'ftypheic', b'ftypheix', b'ftypmif1')
#: Each block of 64 pixels of a JPEG has at least a bit, so that a byte holds at most
#: 512. The size in a damaged header would be decoded for minutes.
_JPEG_PIXELS = 1024


def open_image(file: Any) -> Image.Image:
    """Open an image with Pillow, but no EPS, which is a program that Ghostscript would run."""
    Image.init()
    return Image.open(file, formats=[name for name in Image.ID if name != 'EPS'])


def decode_pixels(data: bytes) -> np.ndarray | None:
    """Decode an image as the pipelines' ``LoadImageFromFile`` does.

    Training, tests, inference, pictures and ``lm4ve try`` all decode in this way, so that
    a model sees the same pixels everywhere. Transparency is dropped: OpenCV returns the
    color under it, which is often black.

    Returns:
        np.ndarray or None: uint8 ``[H, W, 3]``, BGR, upright. None: OpenCV does not
            read it.
    """
    pixels: np.ndarray | None = cv2.imdecode(
        np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR
    )
    return pixels


def read_pixels(path: Any) -> np.ndarray:
    """Read an image file by :func:`decode_pixels`.

    Raises:
        UserError: It is no image that OpenCV reads.
    """
    pixels = decode_pixels(fileio.get(str(path)))
    if pixels is None:
        raise UserError(f"The image '{path}' cannot be decoded by OpenCV.")
    return pixels


def shows_through(path: str) -> bool:
    """Return whether pixels of an image file are transparent; False for a damaged file."""
    data = fileio.get(path)
    if data.startswith(_JPEG):
        return False
    try:
        with open_image(io.BytesIO(data)) as picture:
            if not picture.has_transparency_data:
                return False
            alpha = np.asarray(picture.convert('RGBA').getchannel('A'))
            return bool(alpha.min() < 255)
    except MemoryError:
        raise
    except Exception:
        # Pillow's decoders raise anything; find_defect reports such files.
        return False


def find_defect(
    path: str,
    decode: bool = False,
    backend_args: dict | None = None,
    opencv: bool = True,
) -> str | None:
    """Return what is wrong with an image file.

    Args:
        path (str): The file. Its bytes decide its format, not its name.
        decode (bool): Decode it too (a JPEG at an eighth of its size). Without, a JPEG
            or PNG with both of its end markers passes; all other files are always
            decoded.
        backend_args (dict, optional): Passed to the file backend, as in
            ``LoadImageFromFile``.
        opencv (bool): OpenCV has to read it too, as it does for the pipelines.

    Returns:
        str or None: The defect, worded to follow the file's name, or None. Flipped
        bits inside the pixel data are not found: the decoder accepts them.

    Raises:
        OSError, StorageError: Storage does not give the file.

    Measured on one CPU core with a 500 x 375 JPEG of 38 kB: about 10 microseconds
    without and 250 with ``decode``, where a full decode takes 415 (remote backends: the
    time of one more download).
    """
    try:
        backend = fileio.get_file_backend(
            path, backend_args=backend_args, enable_singleton=True
        )
        if isinstance(backend, LocalBackend):
            # Reading a pipe or a device may never end.
            if not is_file(path):
                return 'does not exist, or is no file'
            if not decode and _has_markers(path):
                return None
        data = backend.get(path)
    except (OSError, ValueError) as error:
        if is_storage_error(error):
            raise
        return f'cannot be read ({error})'
    if not decode and _are_markers(data, data[-_LENGTH:]):
        return None
    return _decode(data, opencv)


def _has_markers(path: str) -> bool:
    """Return whether a local file begins and ends as a JPEG or PNG; reads nothing else."""
    with open(path, 'rb') as file:
        head = file.read(_LENGTH)
        size = file.seek(0, io.SEEK_END)
        file.seek(max(0, size - _LENGTH))
        tail = file.read()
    return _are_markers(head, tail)


def _are_markers(head: bytes, tail: bytes) -> bool:
    """Return whether the first and the last bytes are those of a JPEG or of a PNG."""
    for start, end in _ENDS.items():
        if head.startswith(start) and tail.endswith(end):
            return True
    return False


def _decode(data: bytes, opencv: bool) -> str | None:
    """Decode an image's bytes with Pillow; return what is wrong with it, or None.

    Pillow reports truncation, and accepts bytes behind an end marker.

    Args:
        data (bytes): The file's content.
        opencv (bool): OpenCV has to read it too. It reads every sound JPEG and PNG.
    """
    if not data:
        return 'is empty'
    try:
        image = open_image(io.BytesIO(data))
        if image.format == 'JPEG':
            pixels = image.width * image.height
            if pixels > _JPEG_PIXELS * len(data):
                return f'is damaged: {len(data)} bytes cannot hold {pixels / 1e6:.0f} megapixels'
            # At an eighth of its size a JPEG is decoded faster, and all of its bytes are
            # read all the same.
            eighth = max(1, image.width // 8), max(1, image.height // 8)
            image.draft(image.mode, eighth)
        image.load()
        # OpenCV lacks some pixel types of other formats, such as 32 bits.
        if opencv and image.format not in ('JPEG', 'PNG'):
            if decode_pixels(data) is None:
                return 'cannot be decoded by OpenCV'
    except UnidentifiedImageError:
        if data[4:12] in _HEIC:
            return 'is a HEIC image, which is not read: convert it to JPEG'
        return 'is not an image'
    except Image.DecompressionBombError:
        # A large image is not a broken one.
        return None
    except OSError as error:
        return f'cannot be decoded ({error})'
    except Exception as error:
        # Decoders raise anything, and messages may hold bytes of the file.
        return f'cannot be decoded ({type(error).__name__})'
    return None


class ImageFilesMixin(IntegrityMixin):
    """Applies the policy for corrupt files to a data set whose entries have ``img_path``."""

    noun = 'image'
    scan_decodes = True
    remembered_as: str | None = 'image'

    def path_of(self, info: dict[str, Any]) -> str:
        """Return the image file of an entry."""
        return info['img_path']

    def find_defect(self, path: str, decode: bool = False) -> str | None:
        """Return what is wrong with an image file, or None."""
        return find_defect(path, decode, self._backend_args)

    @property
    def _backend_args(self) -> dict | None:
        """The arguments with which the pipeline's loader reads files."""
        for transform in self.pipeline.transforms:
            backend_args = getattr(transform, 'backend_args', None)
            if backend_args:
                return backend_args
        return None
