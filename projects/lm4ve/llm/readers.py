"""Read single tensors of a checkpoint, one at a time, without executing code.

A reader lists the tensors and maps one on request. Every tensor has a map of its own, which
ends with the tensor: a map that stays open would keep all the pages that were touched in
memory, and so double the peak of loading a block.
"""

import json
import warnings
import zipfile
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path, PurePath
from typing import Protocol

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

    @cached_property
    def _shapes(self) -> dict[str, tuple[int, ...]]:
        try:
            with safe_open(self.path, framework='pt') as f:
                return {k: tuple(f.get_slice(k).get_shape()) for k in f.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as e:
            raise damaged(self.path, e) from e

    def names(self) -> Iterable[str]:
        return self._shapes.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        return self._shapes[name]

    def read(self, name: str) -> Tensor:
        try:
            with safe_open(self.path, framework='pt') as f:
                tensor: Tensor = f.get_tensor(name)
                return tensor
        except (SafetensorError, OSError) as e:
            raise damaged(self.path, e) from e


class TorchFile:
    """One file written by ``torch.save``: ``pytorch_model*.bin``, ``*.pth``.

    Files in PyTorch's zip format (1.6 and later) are mapped anew for every tensor. Older
    files have to be read as a whole, with a warning.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._legacy: dict[str, Tensor] | None = None
        self._version: tuple[int, ...] = ()

    @cached_property
    def _shapes(self) -> dict[str, tuple[int, ...]]:
        self._version = _version(self.path)
        zipped = is_zipped(self.path)
        if zipped:
            _refuse_compressed(self.path)
        else:
            warnings.warn(
                f'{self.path} is in the format from before PyTorch 1.6: the whole file is read '
                'into memory. Convert it to safetensors to avoid this.',
                stacklevel=2,
            )
        tensors = self._load(mmap=zipped)
        if not zipped:
            self._legacy = tensors
        return {name: tuple(tensor.shape) for name, tensor in tensors.items()}

    def names(self) -> Iterable[str]:
        return self._shapes.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        return self._shapes[name]

    def read(self, name: str) -> Tensor:
        if name not in self._shapes:
            raise KeyError(name)
        if self._legacy is not None:
            return self._legacy[name]
        try:
            tensor = self._load(mmap=True)[name]
            unchanged = _version(self.path) == self._version
        except (KeyError, OSError) as e:
            raise damaged(self.path, e) from e
        if not unchanged:
            raise CheckpointError(f'{self.path} changed while it was read. Fix: start again.')
        return tensor

    def _load(self, mmap: bool) -> dict[str, Tensor]:
        with safe_loading(self.path):
            content = torch.load(self.path, map_location='cpu', weights_only=True, mmap=mmap)
        if not isinstance(content, dict):
            raise CheckpointError(
                f"'{self.path}' holds a {type(content).__name__}, not named tensors."
            )
        return {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, Tensor)}


def _version(path: Path) -> tuple[int, ...]:
    stat = path.stat()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


def _refuse_compressed(path: Path) -> None:
    """Refuse a compressed zip, whose bytes a map would give for numbers."""
    with safe_loading(path), zipfile.ZipFile(path) as z:
        compressed = any(e.compress_type != zipfile.ZIP_STORED for e in z.infolist())
    if compressed:
        raise CheckpointError(
            f'{path} is a compressed zip, which cannot be memory-mapped. Fix: write it again with '
            'torch.save(torch.load(file, weights_only=True), file).'
        )


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
            shards = {PurePath(shard) for shard in self.weight_map.values()}
        except (ValueError, KeyError, TypeError, RecursionError) as e:
            raise CheckpointError(f'{index} is not a weight index: {e!r}.') from e
        for shard in shards:
            if shard.is_absolute() or '..' in shard.parts:
                raise CheckpointError(
                    f"{index} names the shard '{shard}' outside the checkpoint's folder."
                )
        self._files: dict[str, TensorReader] = {}

    def names(self) -> Iterable[str]:
        return self.weight_map.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        return self._shard(name).shape(name)

    def read(self, name: str) -> Tensor:
        return self._shard(name).read(name)

    def _shard(self, name: str) -> TensorReader:
        """Open the shard of a tensor."""
        shard = self.weight_map[name]
        if shard not in self._files and (path := self.source.find(shard)) is not None:
            self._files[shard] = open_file(path)
        if shard not in self._files or name not in self._files[shard].names():
            raise CheckpointError(
                f"{self.index} names '{shard}' for '{name}', but '{self.source.name}' has no such "
                'file, or the file lacks the tensor. Fix: download that shard again.'
            )
        return self._files[shard]


def open_file(path: Path) -> TensorReader:
    """Return the reader of one weight file, by its suffix."""
    return SafetensorsFile(path) if path.suffix == '.safetensors' else TorchFile(path)


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
            return IndexedFiles(source, path) if path.suffix == '.json' else open_file(path)
    raise CheckpointError(
        f"block.checkpoint='{source.name}' has a config but none of {', '.join(HF_FILES)}. Fix: "
        'download the weights too, or set block.pretrained=False for a random block.'
    )
