"""One labelled item: the file of a picture, or a sample of a config's data set."""

import functools
import hashlib
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mmengine import fileio
from PIL import Image

from lm4ve.data.image_files import MAX_PIXELS, DamagedPictureError, shows_through
from lm4ve.data.shards import PREFIX
from lm4ve.data.twins import shrink, shrink_pixels
from lm4ve.study.pictures.reading import (
    find_damage_in_file,
    picture_of_array,
    read_picture,
)

#: Held while a data set gives a sample. Loaders read data sets in processes, so that one
#: may keep an open file and its place in it: two threads would get each other's samples.
_ONE_THREAD = threading.Lock()


@dataclass(frozen=True)
class DatasetItem:
    """A sample of a data set, before the data set's pipeline.

    Attributes:
        dataset: A data set of MMEngine's kind.
        index (int): Which of its samples.
    """

    dataset: Any
    index: int

    def info(self) -> dict[str, Any]:
        """Return the sample as the data set gives it to its pipeline; may run in any thread."""
        with _ONE_THREAD:
            info: dict[str, Any] = self.dataset.get_data_info(self.index)
        return info


Item = Path | DatasetItem


def load_item(item: Item) -> Any:
    """Return a picture in RGB, or what goes into the pipeline of a clip or a cloud.

    Raises:
        DamagedPictureError: It cannot be decoded.
    """
    if isinstance(item, Path):
        return read_picture(item)
    info = item.info()
    if 'img' in info:
        return picture_of_array(info['img'], _innermost_class(item.dataset))
    if 'img_path' in info:
        max_pixels = getattr(item.dataset, 'max_pixels', MAX_PIXELS)
        return read_picture(info['img_path'], max_pixels)
    return info


def _innermost_class(dataset: Any) -> str:
    """Return the name of a data set's class; of a wrapper, that of the data set in it."""
    while hasattr(dataset, 'dataset'):
        dataset = dataset.dataset
    return type(dataset).__name__


def file_of(item: Item) -> str | None:
    """Return the file or the shard's entry of a picture; None for an item without one."""
    if isinstance(item, Path):
        return str(item) if item.is_file() else None
    path = item.info().get('img_path')
    if isinstance(path, str) and _is_readable(path):
        return path
    return None


def name_of(item: Item) -> str:
    """Return how a message names an item: by its file, or by its place in a data set."""
    path = file_of(item)
    if path is not None:
        return path
    if isinstance(item, DatasetItem):
        return f'sample {item.index} of {type(item.dataset).__name__}'
    return str(item)


def find_damage(item: Item) -> str | None:
    """Return why a picture's file cannot be read, without decoding most, or None.

    Samples of data sets give None, since their data set checks them.
    """
    if isinstance(item, Path):
        return find_damage_in_file(str(item))
    return None


def is_transparent(item: Item) -> bool:
    """Return whether an item is a picture with transparent parts."""
    path = file_of(item)
    return path is not None and shows_through(path)


def small_version(item: Item) -> np.ndarray | None:
    """Return the small version of a picture, by which twins are looked for, or None.

    See :func:`lm4ve.data.twins.shrink`. Clips and clouds have none.
    """
    path = file_of(item)
    if path is not None:
        return shrink(fileio.get(path))
    pixels = pixels_of(item)
    return None if pixels is None else shrink_pixels(pixels)


def pixels_of(item: Item) -> np.ndarray | None:
    """Return a picture as uint8 ``[H, W, 3]``, BGR; None for a damaged one, a clip or a cloud."""
    try:
        picture = load_item(item)
    except DamagedPictureError:
        return None
    if not isinstance(picture, Image.Image):
        return None
    return np.ascontiguousarray(np.asarray(picture)[..., ::-1])


class ItemHasher:
    """Hashes the content of items: of a file, or of all fields of a data set's sample.

    It reads contents, not sizes and times: a copy or a checkout keeps its features, and
    an edit within the clock's resolution is noticed. 3,000 small files take a second.
    """

    def __init__(self) -> None:
        # Many samples may lie in one file, which is then read once.
        self._hash_text = functools.cache(_hash_text)

    def __call__(self, item: Item) -> str:
        """Return hex digits that identify an item's content."""
        if isinstance(item, Path):
            if item.is_file():
                return _sha256(item.read_bytes())
            return _sha256(repr(str(item)).encode())
        info = item.info()
        fields = sorted(info.keys() - {'sample_idx'})
        return ''.join(self._hash_value(info[field]) for field in fields)

    def _hash_value(self, value: Any) -> str:
        """Hash a field of a sample: an array, a text that may name a file, or plain data."""
        if isinstance(value, np.ndarray):
            dtype_and_shape = f'{value.dtype}{value.shape}'
            return _sha256(dtype_and_shape.encode() + value.tobytes())
        if isinstance(value, str):
            return self._hash_text(value)
        return _sha256(repr(value).encode())


def _hash_text(value: str) -> str:
    """Hash the content of the file that a text names; a text that names none, itself."""
    if _is_readable(value):
        return _sha256(fileio.get(value))
    return _sha256(repr(value).encode())


def _is_readable(path: str) -> bool:
    """Return whether a text names a file, or an entry of a shard."""
    return path.startswith(f'{PREFIX}://') or Path(path).is_file()


def _sha256(data: bytes) -> str:
    """Return the SHA-256 of bytes in hex."""
    return hashlib.sha256(data).hexdigest()
