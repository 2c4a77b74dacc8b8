"""Read single tensors of a checkpoint, one at a time, without executing code.

Opening a file lists its tensors; each is read on request, through a map of its own,
which ends with the tensor: a map that stays open would keep all the pages that were
touched in memory, and so double the peak of loading a block.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePath

from safetensors import safe_open
from torch import Tensor

from lm4ve.errors import CheckpointError
from lm4ve.llm.sources import FileSource, Tensors
from lm4ve.llm.torch_files import open_torch


def open_file(path: Path) -> Tensors:
    """List the tensors of one weight file; its suffix names the format.

    Raises:
        CheckpointError: It cannot be read.
    """
    if path.suffix != '.safetensors':
        return open_torch(path)
    try:
        with safe_open(path, framework='pt') as f:
            names = f.keys()
            return {name: partial(_read, path, name) for name in names}
    except Exception as e:  # any class of error, and the file is not named
        raise CheckpointError(f"'{path}' cannot be read as safetensors: {e}.") from e


def _read(path: Path, name: str) -> Tensor:
    """Read one tensor of a safetensors file, through a map that ends with the tensor."""
    with safe_open(path, framework='pt') as f:
        tensor: Tensor = f.get_tensor(name)
    return tensor


def file_of(read: Callable[[], Tensor]) -> str | None:
    """Return the name of the file that a function of :data:`Tensors` reads, if it says so.

    The functions of :func:`open_file` for safetensors and of :func:`open_index` do;
    those that join several tensors into one do not.
    """
    if not isinstance(read, partial):
        return None
    if read.func is _read:
        path: Path = read.args[0]
        return path.name
    owner = getattr(read.func, '__self__', None)
    if isinstance(owner, Shards):
        return owner.shard_of[read.args[0]]
    return None


def open_index(source: FileSource, index: Path) -> Tensors:
    """List the tensors of a sharded checkpoint, whose shards are opened one by one.

    Args:
        source (FileSource): Where the shards are.
        index (Path): ``*.index.json`` with a ``weight_map``.

    Raises:
        CheckpointError: The index is damaged or leads out of its folder; or, when a
            tensor is read, its shard is missing.
    """
    shards = Shards(source, index, _read_weight_map(index))
    return {name: partial(shards.read, name) for name in shards.shard_of}


def _read_weight_map(index: Path) -> dict[str, str]:
    """Read a weight index.

    Returns:
        dict[str, str]: Name of a tensor -> name of the file that holds it.

    Raises:
        CheckpointError: The index is damaged or leads out of its folder.
    """
    try:
        content = json.loads(index.read_text())
        shard_of: dict[str, str] = dict(content['weight_map'])
        paths = {PurePath(shard) for shard in shard_of.values()}
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        raise CheckpointError(f'{index} is not a weight index: {e!r}.') from e
    for path in paths:
        if path.is_absolute() or '..' in path.parts:
            raise CheckpointError(
                f"{index} names a shard outside the checkpoint's folder."
            )
    return shard_of


@dataclass
class Shards:
    """The shards of a checkpoint, each opened when a tensor of it is first read.

    Attributes:
        source (FileSource): Where they are.
        index (Path): The index, for messages.
        shard_of (dict[str, str]): Name of a tensor -> the file that holds it.
        opened (dict[str, Tensors]): The tensors of each file that was opened.
    """

    source: FileSource
    index: Path
    shard_of: dict[str, str]
    opened: dict[str, Tensors] = field(default_factory=dict)

    def read(self, name: str) -> Tensor:
        """Read a tensor from its shard, which is opened if it is not open yet.

        Raises:
            CheckpointError: Its shard is missing, or lacks it.
        """
        shard = self.shard_of[name]
        if shard not in self.opened:
            path = self.source.find(shard)
            if path is not None:
                self.opened[shard] = open_file(path)
        tensors = self.opened.get(shard, {})
        if name not in tensors:
            raise CheckpointError(
                f"{self.index} names '{shard}' for '{name}', but '{self.source.name}' "
                'has no such file, or the file lacks the tensor. Fix: download that '
                'shard again.'
            )
        return tensors[name]()


#: Hugging Face file names, best first: the safe format before pickles.
HF_FILES: tuple[str, ...] = (
    'model.safetensors.index.json',
    'model.safetensors',
    'pytorch_model.bin.index.json',
    'pytorch_model.bin',
)


def open_huggingface(source: FileSource, weights: str | None = None) -> Tensors:
    """List the tensors of a Hugging Face folder or hub repository.

    Args:
        source (FileSource): Where its files are.
        weights (str, optional): Name of the only weight file or index to use. Default:
            the first of :data:`HF_FILES` that exists.

    Raises:
        CheckpointError: There are no weights.
    """
    names = HF_FILES
    if weights is not None:
        names = (weights,)
    for name in names:
        path = source.find(name)
        if path is not None:
            if path.suffix == '.json':
                return open_index(source, path)
            return open_file(path)
    refuse_mistral(source)
    raise CheckpointError(
        f"block.checkpoint='{source.name}' has a config but none of "
        f'{", ".join(HF_FILES)}. Fix: copy them beside it; only random weights '
        '(block.pretrained=False, or --encoder-checkpoint none) need no file.'
    )


def refuse_mistral(source: FileSource) -> None:
    """Refuse a folder whose weights are in Mistral's own layout.

    Mistral's releases hold them twice, for its own library and for transformers.

    Raises:
        CheckpointError: It holds ``consolidated.safetensors``, or its shards.
    """
    if source.folder is None:
        return
    if any(source.folder.glob('consolidated*.safetensors')):
        raise CheckpointError(mistral_advice(source.name))


def mistral_advice(name: str) -> str:
    """Return a message about a checkpoint in Mistral's own layout, by its name."""
    return (
        f"block.checkpoint='{name}' has consolidated.safetensors, Mistral's own layout, which is "
        "not read. Fix: config.json and model*.safetensors of the same release, transformers' "
        "layout: hf download mistralai/NAME --exclude 'consolidated*'."
    )
