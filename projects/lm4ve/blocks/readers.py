"""Read single tensors of a checkpoint, one at a time, without executing code.

A reader knows which tensors there are and reads one on request. Files are
opened for each tensor and closed again: a memory map that stays open keeps the
pages that were touched in memory, which would double the peak of loading a
block. Opening is cheap (a header, or the pickle of names).
"""
import json
import pickle
import re
import warnings
from pathlib import Path
from typing import Dict, Iterable, Optional, Tuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lm4ve.blocks.files import FileSource
from lm4ve.errors import CheckpointError


class TensorReader:
    """Tensors by name, read lazily."""

    def names(self) -> Iterable[str]:
        """Return the names of all tensors, without reading any."""
        raise NotImplementedError

    def shape(self, name: str) -> Tuple[int, ...]:
        """Return the shape of one tensor without reading its values."""
        raise NotImplementedError

    def read(self, name: str) -> Tensor:
        """Read one tensor into memory of its own (CPU, its stored dtype)."""
        raise NotImplementedError


def _unsafe(path: Path, error: Exception) -> CheckpointError:
    # The rest of torch's text advises to switch the check off.
    found = re.search(r'GLOBAL (\S+) was not an allowed', str(error))
    what = f' ({found.group(1)})' if found else ''
    return CheckpointError(
        f'{path} was not loaded: it holds more than plain tensors{what}, and '
        'loading such a pickle could run code. Fix: convert it to '
        'safetensors in a trusted place, or point block.checkpoint at a '
        'copy that has *.safetensors.')


def _damaged(path: Path, error: Exception) -> CheckpointError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return CheckpointError(
        f'{path} ({path.stat().st_size:,} bytes) cannot be read and looks '
        f'truncated or damaged: {reason}. Fix: download or copy the file '
        'again and compare its size with the original.')


class SafetensorsFile(TensorReader):
    """One ``*.safetensors`` file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def _open(self):
        try:
            return safe_open(str(self.path), framework='pt')
        except (SafetensorError, OSError) as e:
            raise _damaged(self.path, e) from e

    def names(self) -> Iterable[str]:
        with self._open() as f:
            return list(f.keys())

    def shape(self, name: str) -> Tuple[int, ...]:
        with self._open() as f:
            return tuple(f.get_slice(name).get_shape())

    def read(self, name: str) -> Tensor:
        with self._open() as f:
            return f.get_tensor(name).clone()


class TorchFile(TensorReader):
    """One file written by ``torch.save``: ``pytorch_model*.bin``, ``*.pth``.

    Files in PyTorch's zip format (1.6 and later) are memory-mapped; older ones
    have to be read as a whole, which a warning says.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # Only for the old format, which is read once as a whole.
        self._whole: Optional[Dict[str, Tensor]] = None
        self._shapes: Optional[Dict[str, Tuple[int, ...]]] = None

    def _load(self) -> Dict[str, Tensor]:
        if self._whole is None:
            content = self._load_any()
            if not isinstance(content, dict):
                raise CheckpointError(
                    f'{self.path} holds a {type(content).__name__}, not named '
                    'tensors. Fix: use the file that was released as the '
                    "model's weights.")
            return content
        return self._whole

    def _load_any(self):
        try:
            return torch.load(
                self.path, map_location='cpu', mmap=True, weights_only=True)
        except pickle.UnpicklingError as e:
            raise _unsafe(self.path, e) from e
        except (RuntimeError, ValueError, EOFError, OSError) as e:
            if self.path.stat().st_size == 0 or _is_zip(self.path):
                raise _damaged(self.path, e) from e
        warnings.warn(
            f'{self.path} is in the format from before PyTorch 1.6, which '
            'cannot be memory-mapped: the whole file '
            f'({self.path.stat().st_size / 1e9:.1f} GB) is read into memory. '
            'Convert it to safetensors to avoid this.',
            stacklevel=2)
        try:
            self._whole = torch.load(
                self.path, map_location='cpu', weights_only=True)
        except pickle.UnpicklingError as e:
            raise _unsafe(self.path, e) from e
        except (RuntimeError, ValueError, EOFError, OSError) as e:
            raise _damaged(self.path, e) from e
        return self._whole

    def names(self) -> Iterable[str]:
        return self._index()

    def shape(self, name: str) -> Tuple[int, ...]:
        return self._index()[name]

    def _index(self) -> Dict[str, Tuple[int, ...]]:
        if self._shapes is None:
            self._shapes = {
                k: tuple(v.shape)
                for k, v in self._load().items() if isinstance(v, Tensor)
            }
        return self._shapes

    def read(self, name: str) -> Tensor:
        tensor = self._load()[name]
        return tensor if self._whole is not None else tensor.clone()


def _is_zip(path: Path) -> bool:
    with open(path, 'rb') as f:
        return f.read(2) == b'PK'


def open_file(path: Path) -> TensorReader:
    """Return the reader of one weight file, by its suffix."""
    if path.suffix == '.safetensors':
        return SafetensorsFile(path)
    return TorchFile(path)


# What a file says of a tensor that it does not hold.
_ABSENT = (KeyError, SafetensorError)


class IndexedFiles(TensorReader):
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
        except (ValueError, KeyError, TypeError) as e:
            raise CheckpointError(
                f'{index} is not a weight index ({type(e).__name__}: {e}). '
                'Fix: copy the file again.') from e
        self._open: Dict[str, TensorReader] = {}

    def names(self) -> Iterable[str]:
        return self.weight_map.keys()

    def shape(self, name: str) -> Tuple[int, ...]:
        return self._ask('shape', name)

    def read(self, name: str) -> Tensor:
        return self._ask('read', name)

    def _ask(self, method: str, name: str):
        shard = self.weight_map[name]
        if shard not in self._open:
            path = self.source.find(shard)
            if path is None:
                raise CheckpointError(
                    f"{self.index} says that '{name}' is in '{shard}', but "
                    f"'{self.source.name}' has no such file. Fix: download "
                    'that shard (only the shards of the chosen layers are '
                    'needed).')
            self._open[shard] = open_file(path)
        try:
            return getattr(self._open[shard], method)(name)
        except _ABSENT as e:
            raise CheckpointError(
                f"{self.index} says that '{name}' is in '{shard}', but that "
                f'file does not have it ({e}). Fix: index and shards are of '
                'different downloads; copy both again.') from e


#: Hugging Face file names, best first: the safe format before pickles.
HF_FILES = ('model.safetensors.index.json', 'model.safetensors',
            'pytorch_model.bin.index.json', 'pytorch_model.bin')


def open_huggingface(source: FileSource,
                     weights: Optional[str] = None) -> TensorReader:
    """Open the weights of a Hugging Face folder or hub repository.

    Args:
        source (FileSource): Where its files are.
        weights (str, optional): The one weight file or index to use.

    Raises:
        CheckpointError: There are no weights.
    """
    for filename in (weights, ) if weights else HF_FILES:
        path = source.find(filename)
        if path is not None:
            if filename.endswith('.index.json'):
                return IndexedFiles(source, path)
            return open_file(path)
    found = ', '.join(source.names()[:12]) or 'nothing'
    raise CheckpointError(
        f"block.checkpoint='{source.name}' has a config but no weights: "
        f'expected one of {", ".join(HF_FILES)}; found {found}. Fix: download '
        'the weights too, or set block.pretrained=False for a random block '
        'of this shape.')
