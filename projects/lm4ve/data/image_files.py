"""Reads image files, and finds damaged ones, which decoders do not always report.

Many builds of OpenCV return a truncated JPEG with a gray lower part and no error (4.14
refuses it), so a broken download would be trained on. All tasks that read images use
this check.
"""

import io
from typing import Any, BinaryIO

import cv2
import numpy as np
from mmengine import fileio
from mmengine.fileio import LocalBackend
from PIL import Image, UnidentifiedImageError

from lm4ve.data.integrity import IntegrityMixin
from lm4ve.errors import TooLargeError, UserError, check
from lm4ve.files import is_file, is_storage_error
from lm4ve.pixels.png import without_notes

#: The most pixels that are decoded by default: Pillow's limit. They take 0.5 GB.
MAX_PIXELS = 178_956_970
#: The most that ``max_pixels`` may be: OpenCV decodes no more.
MOST_PIXELS = 2**30
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


class DamagedPictureError(UserError):
    """An image cannot be decoded."""


def open_image(file: Any, path: Any, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Open an image with Pillow, but no EPS, which is a program that Ghostscript would run.

    Args:
        file: What Pillow opens: a path, or an open file.
        path: How an error names it.
        max_pixels (int): Where Pillow's own limit is lower, it is raised for the whole
            process, so that this one decides.

    Raises:
        TooLargeError: Its header says that it has more pixels than ``max_pixels``.
    """
    Image.init()
    # Pillow warns above its limit, and refuses twice as many pixels.
    if Image.MAX_IMAGE_PIXELS is not None and 2 * Image.MAX_IMAGE_PIXELS < max_pixels:
        Image.MAX_IMAGE_PIXELS = max_pixels
    too_large = (
        f"The image '{path}' has more pixels than max_pixels={max_pixels}. Fix: make it "
        'smaller or remove it; a config may raise dataset.max_pixels.'
    )
    formats = [name for name in Image.ID if name != 'EPS']
    try:
        image = Image.open(file, formats=formats)
    except Image.DecompressionBombError as error:
        raise TooLargeError(too_large) from error
    if image.width * image.height > max_pixels:
        raise TooLargeError(too_large)
    return image


def decode_pixels(data: bytes, flag: int = cv2.IMREAD_COLOR) -> np.ndarray | None:
    """Decode an image as the pipelines' ``LoadImageFromFile`` does.

    Training, tests, inference, pictures and ``lm4ve try`` all decode in this way, so that
    a model sees the same pixels everywhere. Transparency is dropped: OpenCV returns the
    color under it, which is often black. Of an animation it is the first frame.

    Args:
        data (bytes): A file's content, whose size was looked at (:func:`open_image`).
        flag (int): Another of OpenCV's flags for color, such as of a smaller size.

    Returns:
        np.ndarray or None: uint8 ``[H, W, 3]``, BGR, upright. None: OpenCV does not
            read it.
    """
    content = np.frombuffer(without_notes(data), np.uint8)
    pixels: np.ndarray | None = cv2.imdecode(content, flag)
    return pixels


def read_pixels(path: Any, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read an image file by :func:`decode_pixels`.

    Args:
        path: The file, or an entry of a shard.
        max_pixels (int): The most pixels of an image.

    Raises:
        DamagedPictureError: It is damaged, or no image that OpenCV reads.
        TooLargeError: It has more pixels than ``max_pixels``.
        OSError, StorageError: Storage does not give the file.
    """
    data = fileio.get(str(path))
    defect = _decode(data, path, opencv=True, max_pixels=max_pixels)
    if defect is not None:
        raise DamagedPictureError(f"The image '{path}' {defect}.")
    pixels = decode_pixels(data)
    if pixels is None:
        raise DamagedPictureError(f"The image '{path}' cannot be decoded by OpenCV.")
    return pixels


def shows_through(path: str) -> bool:
    """Return whether pixels of an image file are transparent; False for a damaged file."""
    data = fileio.get(path)
    if data.startswith(_JPEG):
        return False
    try:
        with open_image(io.BytesIO(data), path) as picture:
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
    max_pixels: int = MAX_PIXELS,
) -> str | None:
    """Return what is wrong with an image file.

    Args:
        path (str): The file. Its bytes decide its format, not its name.
        decode (bool): Decode it too (a JPEG at an eighth of its size). Without, a JPEG
            or PNG with a header and both of its end markers passes; all other files are
            always decoded.
        backend_args (dict, optional): Passed to the file backend, as in
            ``LoadImageFromFile``.
        opencv (bool): OpenCV has to read it too, as it does for the pipelines.
        max_pixels (int): The most pixels of an image.

    Returns:
        str or None: The defect, worded to follow the file's name, or None. Flipped
        bits inside the pixel data are not found: the decoder accepts them.

    Raises:
        TooLargeError: By its header it has more pixels than ``max_pixels``.
        OSError, StorageError: Storage does not give the file.

    Measured on one CPU core with a 500 x 375 JPEG of 38 kB: about 40 microseconds
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
            if not decode and _has_ends(path, max_pixels):
                return None
        data = backend.get(path)
    except (OSError, ValueError) as error:
        if is_storage_error(error) or isinstance(error, TooLargeError):
            raise
        return f'cannot be read ({error})'
    are_ends = not decode and _are_markers(data, data[-_LENGTH:])
    if are_ends and _has_header(io.BytesIO(data), path, max_pixels):
        return None
    return _decode(data, path, opencv, max_pixels)


def _has_ends(path: str, max_pixels: int) -> bool:
    """Return whether a local file begins and ends as a JPEG or PNG; reads nothing else."""
    with open(path, 'rb') as file:
        head = file.read(_LENGTH)
        size = file.seek(0, io.SEEK_END)
        file.seek(max(0, size - _LENGTH))
        tail = file.read()
        file.seek(0)
        return _are_markers(head, tail) and _has_header(file, path, max_pixels)


def _has_header(file: BinaryIO, path: str, max_pixels: int) -> bool:
    """Return whether a file has an image's header, with at most ``max_pixels``."""
    try:
        open_image(file, path, max_pixels)
    except MemoryError:
        raise
    except Exception:
        # Pillow's readers raise anything; decoding says what is wrong.
        return False
    return True


def _are_markers(head: bytes, tail: bytes) -> bool:
    """Return whether the first and the last bytes are those of a JPEG or of a PNG."""
    for start, end in _ENDS.items():
        if head.startswith(start) and tail.endswith(end):
            return True
    return False


def _decode(data: bytes, path: Any, opencv: bool, max_pixels: int) -> str | None:
    """Decode an image's bytes with Pillow; return what is wrong with it, or None.

    Pillow reports truncation, and accepts bytes behind an end marker.

    Args:
        data (bytes): The file's content.
        path: How an error names it.
        opencv (bool): OpenCV has to read it too. It reads every sound JPEG and PNG.
        max_pixels (int): The most pixels of an image.

    Raises:
        TooLargeError: It has more pixels than ``max_pixels``.
    """
    if not data:
        return 'is empty'
    try:
        image = open_image(io.BytesIO(data), path, max_pixels)
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
    except TooLargeError:
        if data.startswith(_JPEG) and max_pixels > _JPEG_PIXELS * len(data):
            return f'is damaged: {len(data)} bytes cannot hold {max_pixels / 1e6:.0f} megapixels'
        # A large image is not a broken one.
        raise
    except UnidentifiedImageError:
        if data[4:12] in _HEIC:
            return 'is a HEIC image, which is not read: convert it to JPEG'
        return 'is not an image'
    except OSError as error:
        return f'cannot be decoded ({error})'
    except Exception as error:
        # Decoders raise anything, and messages may hold bytes of the file.
        return f'cannot be decoded ({type(error).__name__})'
    return None


class ImageFilesMixin(IntegrityMixin):
    """Applies the policy for corrupt files to a data set whose entries have ``img_path``.

    Args:
        *args: Passed to the data set.
        max_pixels (int): The most pixels of an image. A larger one is an error, by its
            header, and never decoded: a PNG of 24 kB may have 196 million pixels, which
            take 1.6 GB. The default is Pillow's limit.
        **kwargs: Passed on as well, with ``on_corrupt`` and ``verify`` of
            :class:`lm4ve.data.integrity.IntegrityMixin`.

    Raises:
        TooLargeError: An image has more pixels.
    """

    noun = 'image'
    scan_decodes = True

    def __init__(self, *args: Any, max_pixels: int = MAX_PIXELS, **kwargs: Any) -> None:
        check('dataset.max_pixels', max_pixels, least=1, most=MOST_PIXELS)
        self.max_pixels = max_pixels
        super().__init__(*args, **kwargs)

    def path_of(self, info: dict[str, Any]) -> str:
        """Return the image file of an entry."""
        return info['img_path']

    def find_defect(self, path: str, decode: bool = False) -> str | None:
        """Return what is wrong with an image file, or None."""
        return find_defect(path, decode, self._backend_args, max_pixels=self.max_pixels)

    def read_file(self, path: str) -> bytes:
        """Return the content of an image file, as the pipeline's loader gets it."""
        content: bytes = fileio.get(path, backend_args=self._backend_args)
        return content

    @property
    def _backend_args(self) -> dict | None:
        """The arguments with which the pipeline's loader reads files."""
        for transform in self.pipeline.transforms:
            backend_args = getattr(transform, 'backend_args', None)
            if backend_args:
                return backend_args
        return None
