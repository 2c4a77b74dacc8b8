"""LLaMA as Meta publishes it: ``params.json`` and ``consolidated.*.pth``.

Names and the order of rows are turned into Hugging Face's while reading, so that
only this file knows of a second layout. From 13B up the weights are split over several
files (model parallelism), which are joined here.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from lm4ve.errors import CheckpointError, check
from lm4ve.llm.readers import TensorReader, TorchFile
from lm4ve.llm.sources import FileSource

_Answer = TypeVar('_Answer')
# Hugging Face name in a layer -> (Meta's name, dimension that is split over
# the files; None: every file holds all of it).
_LAYER_NAMES = {
    'self_attn.q_proj.weight': ('attention.wq.weight', 0),
    'self_attn.k_proj.weight': ('attention.wk.weight', 0),
    'self_attn.v_proj.weight': ('attention.wv.weight', 0),
    'self_attn.o_proj.weight': ('attention.wo.weight', 1),
    'mlp.gate_proj.weight': ('feed_forward.w1.weight', 0),
    'mlp.down_proj.weight': ('feed_forward.w2.weight', 1),
    'mlp.up_proj.weight': ('feed_forward.w3.weight', 0),
    'input_layernorm.weight': ('attention_norm.weight', None),
    'post_attention_layernorm.weight': ('ffn_norm.weight', None),
}


def rotary_rows_to_huggingface(weight: Tensor, heads: int) -> Tensor:
    """Reorder the rows of a q or k projection.

    Meta rotates neighbouring pairs ``(0, 1), (2, 3), ...`` of a head, Hugging
    Face the halves ``(0, d/2), (1, d/2 + 1), ...``. The same permutation of q
    and k leaves attention without rotary as it is.

    Args:
        weight (Tensor): ``[heads * d, D]`` in Meta's order.
        heads (int): Heads in it (KV heads for k).

    Returns:
        Tensor: The same rows in Hugging Face's order.
    """
    rows, cols = weight.shape
    pairs = weight.view(heads, rows // heads // 2, 2, cols)
    return pairs.transpose(1, 2).reshape(rows, cols)


class MetaFiles:
    """A Meta checkpoint under the names of ``transformers``' LLaMA layers.

    Args:
        name (str): What the user calls the checkpoint, for messages.
        files (list[Path]): ``consolidated.*.pth``, in order.
        params (dict): The content of ``params.json``.
    """

    def __init__(self, name: str, files: list[Path], params: dict[str, Any]) -> None:
        self.name = name
        self.files = [TorchFile(f) for f in files]
        self.heads = int(params['n_heads'])
        self.kv_heads = int(params.get('n_kv_heads') or self.heads)
        known = {meta: (huggingface, dim) for huggingface, (meta, dim) in _LAYER_NAMES.items()}
        self._names: dict[str, tuple[str, int | None]] = {}
        for stored in self.files[0].names():
            layer, meta = '.'.join(stored.split('.')[:2]), '.'.join(stored.split('.')[2:])
            if meta in known:
                huggingface, dim = known[meta]
                self._names[f'{layer}.{huggingface}'] = stored, dim

    def names(self) -> Iterable[str]:
        return self._names.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        meta, dim = self._names[name]
        shapes = self._of_every_file(TorchFile.shape, name)
        shape = list(shapes[0])
        if dim is None:
            return tuple(shape)
        if len(set(shapes)) > 1:
            raise CheckpointError(f"'{meta}' has unequal parts in '{self.name}': {shapes}.")
        shape[dim] *= len(shapes)
        return tuple(shape)

    def read(self, name: str) -> Tensor:
        parts = self._of_every_file(TorchFile.read, name)
        weight = parts[0] if len(parts) == 1 else torch.cat(parts, dim=self._names[name][1] or 0)
        if name.endswith('q_proj.weight'):
            return rotary_rows_to_huggingface(weight, self.heads)
        if name.endswith('k_proj.weight'):
            return rotary_rows_to_huggingface(weight, self.kv_heads)
        return weight

    def _of_every_file(self, ask: Callable[[TorchFile, str], _Answer], name: str) -> list[_Answer]:
        """Ask every file that holds a part of a tensor."""
        meta, dim = self._names[name]
        return [ask(f, meta) for f in (self.files[:1] if dim is None else self.files)]


def open_meta(
    source: FileSource, path: Path, params: dict[str, Any]
) -> tuple[dict[str, Any], TensorReader]:
    """Open a Meta folder.

    Args:
        source (FileSource): The folder.
        path (Path): Its ``params.json``, for messages.
        params (dict): The content of that file.

    Returns:
        tuple[dict, TensorReader]: What the model's ``config.json`` would say, and its
        tensors under Hugging Face's names.

    Raises:
        CheckpointError: A file or a field is missing, or the parameters ask
            for something that is no plain LLaMA (mixture of experts).
    """
    for field in ('dim', 'n_heads', 'n_layers', 'norm_eps'):
        check(f'{path}: {field}', params.get(field), kind=(int, float), above=0)
    if params.get('moe') or params.get('moe_args'):
        raise CheckpointError(f'{path} describes a mixture of experts. Fix: choose a dense model.')
    files: list[Path] = []
    # By number, not by listing: a hub repository cannot be listed offline.
    while (file := source.find(f'consolidated.{len(files):02d}.pth')) is not None:
        files.append(file)
    if not files:
        raise CheckpointError(f"'{source.name}' has params.json but no consolidated.00.pth.")
    try:
        reader = MetaFiles(source.name, files, params)
        return _config(params, reader, files), reader
    except CheckpointError:
        raise
    except (KeyError, TypeError, ValueError, OverflowError) as e:
        raise CheckpointError(
            f"'{path}' and its weights are not Meta's LLaMA: {e!r}. Fix: copy all files again."
        ) from e


def _config(params: dict[str, Any], reader: MetaFiles, files: list[Path]) -> dict[str, Any]:
    """Return what the model's ``config.json`` would hold."""
    rows = reader.shape('layers.0.self_attn.q_proj.weight')[0]
    if rows != int(params['dim']):
        raise CheckpointError(
            f"The {len(files)} file(s) consolidated.*.pth of '{reader.name}' hold {rows} of the "
            f'{params["dim"]} query rows that params.json implies. Fix: download all of them.'
        )
    # The hidden width is a formula of three fields in params.json; the weight
    # itself cannot be wrong.
    hidden = reader.shape('layers.0.mlp.gate_proj.weight')[0]
    rope = dict(rope_type='default', rope_theta=float(params.get('rope_theta', 1e4)))
    if params.get('use_scaled_rope'):
        rope.update(
            rope_type='llama3',
            factor=float(params.get('rope_scaling_factor', 8)),
            low_freq_factor=1.0,
            high_freq_factor=float(params.get('rope_high_freq_factor', 4)),
            original_max_position_embeddings=8192,
        )
    return dict(
        model_type='llama',
        hidden_size=int(params['dim']),
        intermediate_size=hidden,
        num_hidden_layers=int(params['n_layers']),
        num_attention_heads=reader.heads,
        num_key_value_heads=reader.kv_heads,
        rms_norm_eps=float(params['norm_eps']),
        rope_parameters=rope,
    )
