"""Read single tensors of a checkpoint, one at a time, without executing code.

Opening a file lists its tensors; each is read on request, through a map of its own,
which ends with the tensor: a map that stays open would keep all the pages that were
touched in memory, and so double the peak of loading a block.
"""

import json
from functools import partial
from pathlib import Path, PurePath

from safetensors import safe_open
from torch import Tensor

from lm4ve.errors import CheckpointError
from lm4ve.llm.sources import FileSource, Tensors


def open_file(path: Path) -> Tensors:
    """List the tensors of one weight file; its suffix names the format.

    Raises:
        CheckpointError: It cannot be read.
    """
    if path.suffix != '.safetensors':
        from lm4ve.llm.torch_files import open_torch

        return open_torch(path)
    try:
        with safe_open(path, framework='pt') as f:
            return {name: partial(_read, path, name) for name in f.keys()}  # noqa: SIM118
    except Exception as e:  # whose text does not name the file
        raise CheckpointError(f"'{path}' cannot be read as safetensors: {e}.") from e


def _read(path: Path, name: str) -> Tensor:
    with safe_open(path, framework='pt') as f:
        tensor: Tensor = f.get_tensor(name)
    return tensor


def open_index(source: FileSource, index: Path) -> Tensors:
    """List the tensors of a sharded checkpoint, whose shards are opened one by one.

    Args:
        source (FileSource): Where the shards are.
        index (Path): ``*.index.json`` with a ``weight_map``.

    Raises:
        CheckpointError: The index is damaged or leads out of its folder; or, when a
            tensor is read, its shard is missing.
    """
    try:
        shards: dict[str, str] = dict(json.loads(index.read_text())['weight_map'])
        paths = {PurePath(shard) for shard in shards.values()}
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        raise CheckpointError(f'{index} is not a weight index: {e!r}.') from e
    if any(path.is_absolute() or '..' in path.parts for path in paths):
        raise CheckpointError(f"{index} names a shard outside the checkpoint's folder.")
    opened: dict[str, Tensors] = {}

    def read(name: str) -> Tensor:
        shard = shards[name]
        if shard not in opened and (path := source.find(shard)) is not None:
            opened[shard] = open_file(path)
        if name not in opened.get(shard, ()):
            raise CheckpointError(
                f"{index} names '{shard}' for '{name}', but '{source.name}' has no such file, or "
                'the file lacks the tensor. Fix: download that shard again.'
            )
        return opened[shard][name]()

    return {name: partial(read, name) for name in shards}


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
            tensors = (
                open_index(source, path) if path.suffix == '.json' else open_file(path)
            )
            if any('.experts.' in name for name in tensors):
                from lm4ve.llm.expert_layout import join_experts

                return join_experts(tensors)
            return tensors
    raise CheckpointError(
        f"block.checkpoint='{source.name}' has a config but none of {', '.join(HF_FILES)}. Fix: "
        'copy them beside it; only random weights (block.pretrained=False, or '
        '--encoder-checkpoint none) need no file.'
    )
