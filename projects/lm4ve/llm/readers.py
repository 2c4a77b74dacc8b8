"""Read single tensors of a checkpoint, one at a time, without executing code.

Opening a file lists its tensors; each is read on request, through a map of its own, which
ends with the tensor: a map that stays open would keep all the pages that were touched in
memory, and so double the peak of loading a block.
"""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePath

from safetensors import safe_open
from torch import Tensor

from lm4ve.errors import CheckpointError
from lm4ve.llm.sources import FileSource, StoredTensor, Tensors


def open_safetensors(path: Path) -> Tensors:
    """List the tensors of a ``*.safetensors`` file."""
    with safe_open(path, framework='pt') as f:
        names = list(f.keys())
        shapes = [tuple(f.get_slice(name).get_shape()) for name in names]
    return {n: StoredTensor(s, partial(_read, path, n)) for n, s in zip(names, shapes, strict=True)}


def _read(path: Path, name: str) -> Tensor:
    with safe_open(path, framework='pt') as f:
        tensor: Tensor = f.get_tensor(name)
    return tensor


class IndexedFiles(Tensors):
    """A sharded checkpoint: an index names the shard of every tensor.

    Args:
        source (FileSource): Where the shards are.
        index (Path): ``*.index.json`` with a ``weight_map``.

    Raises:
        CheckpointError: The index is damaged or leads out of its folder, or, of a tensor, its
            shard is missing.
    """

    def __init__(self, source: FileSource, index: Path) -> None:
        self.source, self.index = source, index
        self._files: dict[str, Tensors] = {}
        try:
            self._shards: dict[str, str] = dict(json.loads(index.read_text())['weight_map'])
            paths = {PurePath(shard) for shard in self._shards.values()}
        except (ValueError, KeyError, TypeError, RecursionError) as e:
            raise CheckpointError(f'{index} is not a weight index: {e!r}.') from e
        if any(path.is_absolute() or '..' in path.parts for path in paths):
            raise CheckpointError(f"{index} names a shard outside the checkpoint's folder.")

    def __getitem__(self, name: str) -> StoredTensor:
        shard = self._shards[name]
        if shard not in self._files and (path := self.source.find(shard)) is not None:
            self._files[shard] = open_file(path)
        if name not in self._files.get(shard, ()):
            raise CheckpointError(
                f"{self.index} names '{shard}' for '{name}', but '{self.source.name}' has no such "
                'file, or the file lacks the tensor. Fix: download that shard again.'
            )
        return self._files[shard][name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._shards)

    def __len__(self) -> int:
        return len(self._shards)


def open_file(path: Path) -> Tensors:
    """List the tensors of one weight file; its suffix names the format.

    Raises:
        CheckpointError: It cannot be read.
    """
    if path.suffix != '.safetensors':
        from lm4ve.llm.torch_files import open_torch

        return open_torch(path)
    try:
        return open_safetensors(path)
    except Exception as e:  # whose text does not name the file
        raise CheckpointError(f"'{path}' cannot be read as safetensors: {e}.") from e


#: Hugging Face file names, best first: the safe format before pickles.
HF_FILES = (
    'model.safetensors.index.json',
    'model.safetensors',
    'pytorch_model.bin.index.json',
    'pytorch_model.bin',
)


def open_huggingface(source: FileSource, weights: str | None = None) -> Tensors:
    """List the tensors of a Hugging Face folder or hub repository.

    Args:
        source (FileSource): Where its files are.
        weights (str, optional): The one weight file or index to use.

    Raises:
        CheckpointError: There are no weights.
    """
    for filename in (weights,) if weights else HF_FILES:
        path = source.find(filename)
        if path is not None:
            tensors = IndexedFiles(source, path) if path.suffix == '.json' else open_file(path)
            if any('.experts.' in name for name in tensors):
                from lm4ve.llm.expert_layout import JoinedExperts

                return JoinedExperts(tensors)
            return tensors
    raise CheckpointError(
        f"block.checkpoint='{source.name}' has a config but none of {', '.join(HF_FILES)}. Fix: "
        'download the weights too, or set block.pretrained=False for a random block.'
    )
