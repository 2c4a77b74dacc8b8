"""Reads shards: the many small files of a data set in few large ones, in any order.

A shard is an uncompressed tar file in WebDataset's layout: a sample is a media file and
a ``.cls`` file with its label, under one key. One index holds the place of each sample
of a split::

    <folder>/train-000000.tar, train-000001.tar, ..., train.index.json

Reading a sample is one read at a known place. Samplers, evaluation and resuming
therefore work as on single files, which they would not on a stream. Only the bytes of
media files are used; nothing is unpickled or run.

MMEngine's file backends read a sample by its address, so that pipelines stay as they
are::

    shard://<tar file>?<offset>+<size>?<name of the original file>
"""

import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote, unquote

from mmengine.fileio import FileClient, register_backend
from mmengine.fileio.backends import BaseStorageBackend

from lm4ve.errors import UserError, listing
from lm4ve.files import is_file

#: How addresses begin, before ``://``.
PREFIX = 'shard'
#: The name of the backend that reads them.
BACKEND = 'lm4ve-shards'
#: Bytes of a tar file's header before each file in it.
HEADER = 512


@register_backend(BACKEND, prefixes=PREFIX)
@FileClient.register_backend(BACKEND, prefixes=PREFIX)
class ShardBackend(BaseStorageBackend):
    """Reads samples of shards by their addresses."""

    def get(self, filepath: str) -> bytes:
        """Return the bytes of the sample at an address.

        Raises:
            OSError: The shard is missing, or holds no file of this size at this place.
        """
        path, place, _ = str(filepath).removeprefix(f'{PREFIX}://').split('?')
        offset, size = (int(number) for number in place.split('+'))
        # This name keeps the file open, also if the cache drops it meanwhile.
        file = _open(unquote(path))
        # pread does not move the file's position, so that threads and forked workers can
        # share an open file.
        data = os.pread(file.fileno(), HEADER + size, offset - HEADER)
        is_tar = data[257:262] == b'ustar'
        has_this_size = data[124:136] == b'%011o\0' % size
        if not is_tar or not has_this_size or len(data) < HEADER + size:
            raise OSError('the shard has no file of this size there')
        return data[HEADER:]

    def get_text(self, filepath: str, encoding: str = 'utf-8') -> str:
        """Return the sample at an address as text."""
        return self.get(filepath).decode(encoding)


@lru_cache(maxsize=32)
def _open(path: str) -> BinaryIO:
    """Open a shard for reading, once in a process."""
    return open(path, 'rb')


def read_samples(index: str | Path) -> list[tuple[str, Any]]:
    """Return address and label of each sample in the shards of an index, in its order.

    Args:
        index (str | Path): ``<folder>/<split>.index.json`` of
            ``tools/dataset_converters/shards.py``.

    Raises:
        UserError: A shard is missing or has another size than the index says, or a
            label is no class.
    """
    shards = json.loads(Path(index).read_bytes())['shards']
    samples = []
    damaged_shards = []
    wrong_labels = []
    for shard in shards:
        path = Path(index).with_name(shard['name'])
        if not is_file(path) or path.stat().st_size != shard['bytes']:
            damaged_shards.append(path.name)
        for name, offset, size, label in shard['samples']:
            address = f'{PREFIX}://{quote(str(path))}?{offset}+{size}?{quote(name)}'
            samples.append((address, label))
            if not _are_classes(label):
                wrong_labels.append(f'{name} has {label!r}')
    if wrong_labels:
        raise UserError(
            f"'{index}': labels that are no class from 0: {listing(wrong_labels)}."
        )
    if damaged_shards:
        raise UserError(
            f"'{index}': {len(damaged_shards)} of {len(shards)} shards are missing or cut: "
            f'{listing(damaged_shards)}. Fix: write or copy them again.'
        )
    return samples


def read_left_out(index: str | Path) -> tuple[int, list[str]]:
    """Return how many damaged files are not in the shards of an index, and messages of a few."""
    # Indices of earlier versions do not say.
    left_out = json.loads(Path(index).read_bytes()).get('left_out', {})
    return left_out.get('count', 0), left_out.get('examples', [])


def _are_classes(label: Any) -> bool:
    """Return whether a label is the number of a class, or a list of such numbers."""
    if isinstance(label, list):
        numbers = label
    else:
        numbers = [label]
    # bool is a subclass of int, and no class.
    return all(type(number) is int and number >= 0 for number in numbers)
