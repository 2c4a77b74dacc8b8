"""Reads shards: the many small files of a data set in few large ones, in any order.

A shard is an uncompressed tar file in WebDataset's layout: a sample is a media file and a
``.cls`` file with its label, under one key. Beside each shard lies a JSON file with the place of
each sample in it, and one index lists the shards of a split::

    <folder>/train-000000.tar   train-000000.json   train-000001.tar ...   train.index.json

Reading a sample is one read at a known place. Samplers, evaluation and resuming therefore work as
on single files, which they would not on a stream. Only the bytes of media files are used; nothing
is unpickled or run.

MMEngine's file backends read a sample by its address, so that pipelines stay as they are::

    shard://<tar file>?<offset>+<size>?<name of the original file>
"""

import json
import logging
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote

from mmengine.dist import get_world_size
from mmengine.fileio import FileClient, register_backend
from mmengine.fileio.backends import BaseStorageBackend
from mmengine.logging import print_log

from lm4ve.errors import UserError, brief, listing

#: Prefix of addresses, and name of the backend that reads them.
PREFIX, BACKEND = 'shard', 'lm4ve-shards'
#: Of the layout of indices.
VERSION = 1
#: Bytes of a tar file's header before each file in it.
HEADER = 512
_ESCAPES = str.maketrans({c: f'%{ord(c):02X}' for c in '%?:'})


def address_of(shard: str | Path, name: str, offset: int, size: int) -> str:
    """Return the address of a sample."""
    path = str(shard).translate(_ESCAPES)
    return f'{PREFIX}://{path}?{offset}+{size}?{name.translate(_ESCAPES)}'


def parse_address(address: str) -> tuple[str, int, int]:
    """Return tar file, offset and size of an address.

    Raises:
        ValueError: It has another form.
    """
    path, place, _ = address.removeprefix(f'{PREFIX}://').split('?')
    offset, size = place.split('+')
    return unquote(path), int(offset), int(size)


@register_backend(BACKEND, prefixes=PREFIX)
@FileClient.register_backend(BACKEND, prefixes=PREFIX)
class ShardBackend(BaseStorageBackend):  # type: ignore[misc]
    """Reads samples of shards by their addresses."""

    def get(self, filepath: str) -> bytes:
        """Return the bytes of the sample at an address.

        Raises:
            OSError: The shard is missing, or holds no file of this size at this place.
        """
        path, offset, size = parse_address(str(filepath))
        file = _open(path)  # held, since the cache may drop and so close it meanwhile
        # At an absolute position, so that threads and forked workers can share an open file.
        data = os.pread(file.fileno(), HEADER + size, offset - HEADER)
        intact = data[257:262] == b'ustar' and data[124:136] == b'%011o\0' % size
        if not intact or len(data) < HEADER + size:
            raise OSError('the shard has no file of this size there')
        return data[HEADER:]

    def get_text(self, filepath: str, encoding: str = 'utf-8') -> str:
        """Return the sample at an address as text."""
        return self.get(filepath).decode(encoding)


@lru_cache(maxsize=32)
def _open(path: str) -> BinaryIO:
    return open(path, 'rb')


def index_path(folder: str | Path, split: str) -> Path:
    """Return the path of a split's index."""
    return Path(folder) / f'{split}.index.json'


def read_index(path: str | Path) -> dict[str, Any]:
    """Read the index of a split.

    Returns:
        dict: ``samples`` (int) and ``shards``, a list of dicts with ``name``, ``samples``,
        ``bytes`` and ``sha256``.

    Raises:
        UserError: It is no index, or one of another version.
    """
    try:
        content: dict[str, Any] = json.loads(Path(path).read_bytes())
        fits = content['version'] == VERSION and content['samples'] == sum(
            shard['samples'] for shard in content['shards']
        )
    except (ValueError, KeyError, TypeError):
        fits = False
    if not fits:
        raise UserError(f"'{path}' is no index that tools/dataset_converters/shards.py wrote.")
    return content


def read_samples(index: str, endings: Sequence[str], on_corrupt: str) -> list[tuple[str, Any]]:
    """Return address and label of each sample in the shards of an index, in its order.

    The size of each shard is compared; its content is not read.

    Args:
        index (str): ``<folder>/<split>.index.json``.
        endings (Sequence[str]): Allowed endings of samples, for example '.jpg'.
        on_corrupt (str): Whether a missing, cut or damaged shard is an error ('refuse') or left
            out ('skip'); see :mod:`lm4ve.tasks.base.integrity`.

    Raises:
        UserError: The index is missing or damaged; a shard was refused, or would be left out of
            a training of several processes, which must have the same samples.
    """
    content = read_index(index)
    samples: list[tuple[str, Any]] = []
    problems: list[str] = []
    for shard in content['shards']:
        try:
            samples += _read_shard(Path(index).with_name(shard['name']), shard, endings)
        except (OSError, ValueError, KeyError, TypeError) as e:
            problems.append(f"'{shard['name']}': {e}")
    if problems:
        text = f"'{index}': {len(problems)} of {len(content['shards'])} shards cannot be used"
        text += f', {len(samples):,} of {content["samples"]:,} samples remain: {listing(problems)}.'
        if on_corrupt == 'refuse' or not samples or get_world_size() > 1:
            raise UserError(f'{text} Fix: write or copy these shards again.')
        print_log(text, logger='current', level=logging.WARNING)
    return samples


def _read_shard(path: Path, shard: dict[str, Any], endings: Sequence[str]) -> list[tuple[str, Any]]:
    """Return address and label of each sample in a shard."""
    size = path.stat().st_size
    rows = json.loads(path.with_suffix('.json').read_bytes())['samples']
    if (size, len(rows)) != (shard['bytes'], shard['samples']):
        raise ValueError(f'{size:,} bytes and {len(rows)} samples are not those of the index')
    found = []
    for name, offset, length, label in rows:
        numbers = (offset, length, *(label if isinstance(label, list) else [label]))
        whole = all(type(n) is int and n >= 0 for n in numbers)
        whole = whole and HEADER <= offset <= size - length
        if not whole or not name.lower().endswith(tuple(endings)):
            raise ValueError(f"its list has a damaged entry, '{brief(name)}'")
        found.append((address_of(path, name, offset, length), label))
    return found
