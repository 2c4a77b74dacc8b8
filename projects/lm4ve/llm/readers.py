"""Read single tensors of a checkpoint, one at a time, without executing code.

A reader knows which tensors there are and maps one on request. Every tensor has a
map of its own, which ends with the tensor: a map that stays open would keep all the
pages that were touched in memory, and so double the peak of loading a block.
"""

import json
import struct
import sys
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lm4ve.errors import CheckpointError
from lm4ve.llm.sources import FileSource
from lm4ve.llm.torch_files import damaged, is_zipped, safe_loading


class TensorReader(Protocol):
    """Tensors by name, read lazily."""

    def names(self) -> Iterable[str]:
        """Return the names of all tensors, without reading any."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of one tensor without reading its values."""

    def read(self, name: str) -> Tensor:
        """Return one tensor (CPU, its stored dtype).

        It may be a map of the file, which is to be read only and soon: copy it
        to keep it.
        """


class SafetensorsFile:
    """One ``*.safetensors`` file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def _open(self) -> Any:
        try:
            return safe_open(str(self.path), framework='pt')
        except (SafetensorError, OSError) as e:
            raise damaged(self.path, e) from e

    def names(self) -> Iterable[str]:
        with self._open() as f:
            return list(f.keys())

    def shape(self, name: str) -> tuple[int, ...]:
        with self._open() as f:
            return tuple(f.get_slice(name).get_shape())

    def read(self, name: str) -> Tensor:
        with self._open() as f:
            tensor: Tensor = f.get_tensor(name)
            return tensor


class TorchFile:
    """One file written by ``torch.save``: ``pytorch_model*.bin``, ``*.pth``.

    Files in PyTorch's zip format (1.6 and later) are unpickled once, which maps
    them and tells the names, shapes and places of all tensors. Older files have to
    be read as a whole, which a warning says.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._tensors: dict[str, Tensor] | None = None
        # The values of a zip stay untouched: only their addresses are used.
        self._is_zip = False
        self._address: int | None = None
        self._version: tuple[int, ...] = ()

    def names(self) -> Iterable[str]:
        return self._index().keys()

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._index()[name].shape)

    def read(self, name: str) -> Tensor:
        tensor = self._index()[name]
        if not self._is_zip:
            return tensor
        offset = self._offset(tensor)
        try:
            if offset is None:
                found = self._load(mmap=True)[name]
            else:
                found = _map_at(self.path, offset, tensor)
            same = _version(self.path) == self._version
        except (RuntimeError, KeyError, OSError) as e:
            raise damaged(self.path, e) from e
        if not same:
            raise CheckpointError(
                f'{self.path} changed while it was read. Fix: start again when '
                'nothing writes to it any more.'
            )
        return found

    def _offset(self, tensor: Tensor) -> int | None:
        """Byte of the file that a tensor starts at; None: not known."""
        if (
            self._address is None
            or tensor.layout != torch.strided
            or tensor.is_neg()
            or tensor.is_conj()
        ):
            return None
        offset = tensor.data_ptr() - self._address if tensor.numel() else 0
        return None if offset % tensor.element_size() else offset

    def _index(self) -> dict[str, Tensor]:
        if self._tensors is None:
            self._version = _version(self.path)
            self._is_zip = is_zipped(self.path)
            stored = _storages(self.path) if self._is_zip else []
            if not self._is_zip:
                warnings.warn(
                    f'{self.path} is in the format from before PyTorch 1.6, which cannot be '
                    f'memory-mapped: the whole file ({self.path.stat().st_size / 1e9:.1f} GB) is '
                    'read into memory. Convert it to safetensors to avoid this.',
                    stacklevel=2,
                )
            self._tensors = self._load(mmap=self._is_zip)
            self._address = _address(stored, self._tensors.values())
        return self._tensors

    def _load(self, mmap: bool) -> dict[str, Tensor]:
        with safe_loading(self.path):
            content = torch.load(self.path, map_location='cpu', weights_only=True, mmap=mmap)
        if not isinstance(content, dict):
            raise CheckpointError(
                f'{self.path} holds a {type(content).__name__}, not named tensors. Fix: use the '
                "file that was released as the model's weights."
            )
        return {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, Tensor)}


def _version(path: Path) -> tuple[int, ...]:
    stat = path.stat()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


def _address(stored: list[tuple[int, int]], tensors: Iterable[Tensor]) -> int | None:
    """Find the address that torch has mapped a file to.

    torch does not tell where in the file a tensor is. The zip's directory tells
    where the storages are, and mapped ones have the same sizes and distances.

    Args:
        stored (list): The storages in the file, see :func:`_storages`.
        tensors (Iterable[Tensor]): The mapped ones.

    Returns:
        int | None: None if the two disagree.
    """
    dense = (t.untyped_storage() for t in tensors if t.layout == torch.strided)
    mapped = sorted({(s.data_ptr(), s.nbytes()) for s in dense if s.nbytes()})
    if not mapped or len(mapped) != len(stored):
        return None
    address = mapped[0][0] - stored[0][0]
    found = [(start - address, size) for start, size in mapped]
    return address if found == stored else None


def _storages(path: Path) -> list[tuple[int, int]]:
    """Return start and size, in bytes, of a zip's storages, as they lie.

    Nothing is returned if they are not known for certain: the zip is damaged, in
    another machine's byte order, or has something before its first entry (of
    which Python's reader of zips and torch's think differently).

    Raises:
        CheckpointError: They are compressed, which torch's map does not see.
    """
    found = []
    order = 'little'  # of files from before torch 2.1, which do not say it
    try:
        with zipfile.ZipFile(path) as z, open(path, 'rb', buffering=0) as f:
            entries = {e: e.filename.partition('/')[2] for e in z.infolist()}
            data = [e for e, name in entries.items() if name.startswith('data/') and e.file_size]
            for entry, name in entries.items():
                if name == 'byteorder':
                    order = z.read(entry).decode()
            for entry in data:
                # A local header: 30 bytes, of which the last four are lengths,
                # and the name and padding that have these.
                f.seek(entry.header_offset)
                lengths = struct.unpack('<26x2H', f.read(30))
                found.append((entry.header_offset + 30 + sum(lengths), entry.file_size))
    except (zipfile.BadZipFile, zlib.error, struct.error, ValueError, RuntimeError, OSError):
        return []
    if any(e.compress_type != zipfile.ZIP_STORED for e in data):
        raise CheckpointError(
            f'{path} is a compressed zip, which cannot be memory-mapped. Fix: write it again with '
            'torch.save(torch.load(file, weights_only=True), file).'
        )
    first = min((e.header_offset for e in entries), default=0)
    return sorted(found) if first == 0 and order == sys.byteorder else []


def _map_at(path: Path, offset: int, like: Tensor) -> Tensor:
    """Map a tensor like the given one from a byte of a file on."""
    last = sum((n - 1) * s for n, s in zip(like.shape, like.stride(), strict=True))
    size = (last + 1) * like.element_size() if like.numel() else 0
    file = torch.from_file(str(path), shared=False, size=offset + size, dtype=torch.uint8)
    return file[offset:].view(like.dtype).as_strided(like.shape, like.stride())


def open_file(path: Path) -> TensorReader:
    """Return the reader of one weight file, by its suffix."""
    return SafetensorsFile(path) if path.suffix == '.safetensors' else TorchFile(path)


class IndexedFiles:
    """A sharded checkpoint: an index names the shard of every tensor.

    Args:
        source (FileSource): Where the shards are.
        index (Path): ``*.index.json`` with a ``weight_map``.
    """

    def __init__(self, source: FileSource, index: Path) -> None:
        self.source = source
        self.index = index
        try:
            self.weight_map = dict(json.loads(index.read_text())['weight_map'])
            shards = {str(s): PurePath(s) for s in self.weight_map.values()}
        except (ValueError, KeyError, TypeError, RecursionError) as e:
            raise CheckpointError(
                f'{index} is not a weight index ({type(e).__name__}: {e}). '
                'Fix: copy the file again.'
            ) from e
        for name, shard in shards.items():
            if shard.is_absolute() or '..' in shard.parts:
                raise CheckpointError(
                    f"{index} names the shard '{name}', which lies outside the checkpoint's "
                    'folder, and only files in it are read. Fix: copy the index again.'
                )
        self._files: dict[str, TensorReader] = {}

    def names(self) -> Iterable[str]:
        return self.weight_map.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        with self._shard(name) as file:
            return file.shape(name)

    def read(self, name: str) -> Tensor:
        with self._shard(name) as file:
            return file.read(name)

    @contextmanager
    def _shard(self, name: str) -> Iterator[TensorReader]:
        """Give the shard of a tensor; say so if the shard does not hold it."""
        shard = self.weight_map[name]
        if shard not in self._files:
            path = self.source.find(shard)
            if path is None:
                raise CheckpointError(
                    f"{self.index} says that '{name}' is in '{shard}', but '{self.source.name}' "
                    'has no such file. Fix: download that shard (only the shards of the chosen '
                    'layers are needed).'
                )
            self._files[shard] = open_file(path)
        try:
            yield self._files[shard]
        except (KeyError, SafetensorError) as e:
            raise CheckpointError(
                f"{self.index} says that '{name}' is in '{shard}', but that file does not have it "
                f'({e}). Fix: index and shards are of different downloads; copy both again.'
            ) from e


#: Hugging Face file names, best first: the safe format before pickles.
HF_FILES = (
    'model.safetensors.index.json',
    'model.safetensors',
    'pytorch_model.bin.index.json',
    'pytorch_model.bin',
)


def open_huggingface(source: FileSource, weights: str | None = None) -> TensorReader:
    """Open the weights of a Hugging Face folder or hub repository.

    Args:
        source (FileSource): Where its files are.
        weights (str, optional): The one weight file or index to use.

    Raises:
        CheckpointError: There are no weights.
    """
    for filename in (weights,) if weights else HF_FILES:
        path = source.find(filename)
        if path is not None:
            if filename.endswith('.index.json'):
                return IndexedFiles(source, path)
            return open_file(path)
    found = ', '.join(source.names()[:12]) or 'nothing'
    raise CheckpointError(
        f"block.checkpoint='{source.name}' has a config but no weights: expected one of "
        f'{", ".join(HF_FILES)}; found {found}. Fix: download the weights too, or set '
        'block.pretrained=False for a random block of this shape.'
    )
