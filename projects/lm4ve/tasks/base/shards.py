"""Many small files in few large ones: shards of a data set, which are read in any order.

A shard is an uncompressed tar file in WebDataset's layout: a sample is a media file and a
``.cls`` file with its label, under one key. Beside each shard lies a JSON file that says where
in it each sample begins, and one index lists the shards of a split::

    <folder>/train-000000.tar   train-000000.json   train-000001.tar ...   train.index.json

So a sample is one read at a known place, whatever came before. Samplers, evaluation and resuming
work as on single files, which they would not on a stream: which process reads which sample is
decided by MMEngine's sampler, and each sample of a test counts once. Of a tar file nothing but
the bytes of media files is used; nothing in it is unpickled or run.

A sample has an address that file backends of MMEngine understand, so that pipelines stay as they
are::

    shard://<tar file>?<offset>+<size>?<name of the file that the sample was made of>
"""

import json
import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import unquote

from mmengine.dist import get_world_size
from mmengine.fileio import FileClient, register_backend
from mmengine.fileio.backends import BaseStorageBackend
from mmengine.logging import print_log

from lm4ve.errors import UserError, brief, listing
from lm4ve.tasks.base.integrity import check_policy

#: Under which MMEngine finds the reader: a prefix of addresses, and the name of a backend.
PREFIX, BACKEND = 'shard', 'lm4ve-shards'
#: Of the layout of indices.
VERSION = 1
#: Bytes of a tar file's header before each file in it.
HEADER = 512
_OPEN = 32
_ESCAPES = str.maketrans({c: f'%{ord(c):02X}' for c in '%?:'})


class Sample(NamedTuple):
    """A sample of a shard.

    Attributes:
        address (str): What file backends read it by.
        label (int or list[int]): Its class, or its classes.
    """

    address: str
    label: Any


class ShardProblem(Exception):
    """What is wrong with a shard, in words that follow its name."""


def address_of(shard: str | Path, name: str, offset: int, size: int) -> str:
    """Return the address of a sample."""
    path = str(shard).translate(_ESCAPES)
    return f'{PREFIX}://{path}?{offset}+{size}?{name.translate(_ESCAPES)}'


def parse_address(address: str) -> tuple[str, int, int]:
    """Return tar file, offset and size of an address.

    Raises:
        ValueError: It is none.
    """
    start = f'{PREFIX}://'
    parts = address.removeprefix(start).split('?')
    if not address.startswith(start) or len(parts) != 3:
        raise ValueError(f'no address of a sample in a shard: {address!r}')
    offset, _, size = parts[1].partition('+')
    return unquote(parts[0]), int(offset), int(size)


@register_backend(BACKEND, prefixes=PREFIX)
@FileClient.register_backend(BACKEND, prefixes=PREFIX)
class ShardBackend(BaseStorageBackend):  # type: ignore[misc]
    """Reads samples of shards by their addresses.

    Reads are at absolute positions, so that threads and forked workers share open files.
    """

    def __init__(self) -> None:
        self._files: OrderedDict[str, BinaryIO] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, filepath: str) -> bytes:
        """Return the bytes of a sample.

        Args:
            filepath (str): Its address.

        Raises:
            FileNotFoundError: There is no such shard.
            OSError: No file of this size begins there.
            ValueError: It is no address.
        """
        path, offset, size = parse_address(str(filepath))
        file = self._open(path)
        data = os.pread(file.fileno(), HEADER + size, offset - HEADER)
        head = data[:HEADER]
        if len(data) < HEADER + size:
            raise OSError('the shard ends before it does')
        if head[257:262] != b'ustar' or not _is_size(head[124:136], size):
            raise OSError('the shard has no file of this size there')
        return data[HEADER:]

    def get_text(self, filepath: str, encoding: str = 'utf-8') -> str:
        """Return a sample as text."""
        return self.get(filepath).decode(encoding)

    def _open(self, path: str) -> BinaryIO:
        with self._lock:
            if path not in self._files:
                if len(self._files) >= _OPEN:
                    self._files.popitem(last=False)  # closed once nobody reads from it
                self._files[path] = open(path, 'rb')  # noqa: SIM115
            self._files.move_to_end(path)
            return self._files[path]

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]


def _is_size(field: bytes, size: int) -> bool:
    try:
        return int(field.rstrip(b'\0 ') or b'0', 8) == size
    except ValueError:
        return False


def index_path(folder: str | Path, split: str) -> Path:
    """Return where the index of a split is."""
    return Path(folder) / f'{split}.index.json'


def check_local(path: str | Path) -> None:
    """Refuse an address of another machine, before a backend of it is asked for.

    Raises:
        UserError: It is one.
    """
    if '://' in str(path):
        raise UserError(
            f"dataset: shards are read from local files, not from '{path}'. Fix: copy the folder "
            'to a disk of this machine, one large file after the other.'
        )


def read_samples(index: str, endings: Sequence[str], on_corrupt: str) -> list[Sample]:
    """Return the samples of all shards that an index lists, in its order.

    Each shard is looked up, and its size compared; its content is not read.

    Args:
        index (str): ``<folder>/<split>.index.json``.
        endings (Sequence[str]): Of the files that samples may be, for example '.jpg'.
        on_corrupt (str): What becomes of a shard that is missing, cut or damaged: 'refuse'
            or 'skip'; see :mod:`lm4ve.tasks.base.integrity`.

    Raises:
        UserError: The index is missing, damaged or at another machine; a shard was refused;
            one was to be left out of a training of several processes, of which others may
            have it; nothing is left.
    """
    check_policy(on_corrupt)
    check_local(index)
    content = read_index(index)
    samples: list[Sample] = []
    problems: list[str] = []
    for shard in content['shards']:
        try:
            samples += _read_shard(Path(index).parent, shard, endings)
        except ShardProblem as e:
            problems.append(f"'{shard['name']}' {e}")
    total = content['samples']
    what = f"'{index}': {len(problems)} of {len(content['shards'])} shards cannot be used"
    if problems and (on_corrupt == 'refuse' or not samples or get_world_size() > 1):
        several = on_corrupt == 'skip' and bool(samples)
        raise UserError(
            f'{what}: {listing(problems)}.'
            + (' Of several processes all must have the same samples.' if several else '')
            + ' Fix: write or copy these shards again'
            + ("." if several or not samples else ", or set dataset.on_corrupt='skip'.")
        )  # fmt: skip
    if problems:
        print_log(
            f'{what} and are left out, {len(samples):,} of {total:,} samples remain: '
            f'{listing(problems, 20)}.',
            logger='current',
            level=30,
        )
    if not samples:
        raise UserError(f"'{index}' lists no sample. Fix: write the shards again.")
    return samples


def read_index(path: str | Path) -> dict[str, Any]:
    """Read the index of a split: ``samples`` (int) and ``shards``, a list of dicts.

    Of each shard it says ``name``, ``samples``, ``bytes`` and ``sha256``.

    Raises:
        UserError: It is missing or damaged.
    """
    fix = 'Fix: write it with tools/dataset_converters/shards.py.'
    try:
        content = _json(Path(path))
        fits = content['version'] == VERSION and content['samples'] == sum(
            s['samples'] for s in content['shards']
        )
        fits &= all(_is_shard(s) for s in content['shards'])
    except FileNotFoundError as e:
        raise UserError(f"The index of shards '{path}' does not exist. {fix}") from e
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as e:
        raise UserError(f"'{path}' is no index of shards ({type(e).__name__}). {fix}") from e
    if not fits:
        raise UserError(f"'{path}' is no index of shards, or one of another version. {fix}")
    return content


def _json(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_bytes())
    if not isinstance(content, dict):
        raise TypeError('no object')
    return content


def _is_shard(entry: dict[str, Any]) -> bool:
    name = entry['name']
    counts = entry['samples'], entry['bytes']
    return Path(name).name == name and name.endswith('.tar') and all(map(is_count, counts))


def is_count(value: object) -> bool:
    """Return whether a value is a whole number from 0."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _read_shard(folder: Path, shard: dict[str, Any], endings: Sequence[str]) -> list[Sample]:
    """Return the samples of a shard.

    Raises:
        ShardProblem: It cannot be used.
    """
    path = folder / shard['name']
    try:
        size = path.stat().st_size
        rows = _json(path.with_suffix('.json'))['samples']
    except FileNotFoundError as e:
        beside = '' if str(e.filename) == str(path) else f" lacks '{Path(e.filename).name}'"
        raise ShardProblem(beside.strip() or 'does not exist') from e
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as e:
        raise ShardProblem('has a damaged list of samples') from e
    if size != shard['bytes']:
        raise ShardProblem(f'has {size:,} bytes, expected {shard["bytes"]:,}')
    if not isinstance(rows, list) or len(rows) != shard['samples']:
        raise ShardProblem('has a list of other samples')
    found = []
    for row in rows:
        if not _is_row(row, size):
            raise ShardProblem(f'has a damaged entry in its list: {brief(row)}')
        name, offset, length, label = row
        if not name.lower().endswith(tuple(endings)):
            raise ShardProblem(
                f"has '{brief(name)}', and only files ending in {listing(endings, 12)} are read"
            )
        found.append(Sample(address_of(path, name, offset, length), label))
    return found


def _is_row(row: Any, size: int) -> bool:
    if not isinstance(row, list) or len(row) != 4 or not isinstance(row[0], str):
        return False
    _, offset, length, label = row
    labels = label if isinstance(label, list) else [label]
    whole = all(map(is_count, (offset, length, *labels)))
    return whole and bool(labels) and offset >= HEADER and offset + length <= size
