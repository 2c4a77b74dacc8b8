"""LLaMA as Meta publishes it: ``params.json`` and ``consolidated.*.pth``.

Names and the order of rows are turned into Hugging Face's while reading, so that
only this file has a second layout. From 13B up the weights are split over several
files (model parallelism), which are joined here.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lm4ve.errors import CheckpointError, check
from lm4ve.llm.readers import refuse_mistral
from lm4ve.llm.sources import FileSource, Tensors
from lm4ve.llm.torch_files import open_torch

# Meta's name in a layer -> (Hugging Face's, the dimension that is split over the files;
# None: every file holds all of it).
LAYER_NAMES = {
    'attention.wq.weight': ('self_attn.q_proj.weight', 0),
    'attention.wk.weight': ('self_attn.k_proj.weight', 0),
    'attention.wv.weight': ('self_attn.v_proj.weight', 0),
    'attention.wo.weight': ('self_attn.o_proj.weight', 1),
    'feed_forward.w1.weight': ('mlp.gate_proj.weight', 0),
    'feed_forward.w2.weight': ('mlp.down_proj.weight', 1),
    'feed_forward.w3.weight': ('mlp.up_proj.weight', 0),
    'attention_norm.weight': ('input_layernorm.weight', None),
    'ffn_norm.weight': ('post_attention_layernorm.weight', None),
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
    pairs = weight.view(heads, -1, 2, weight.shape[1])
    return pairs.transpose(1, 2).reshape(weight.shape)


def open_meta(
    source: FileSource, path: Path, params: dict[str, Any]
) -> tuple[dict[str, Any], Tensors]:
    """Open a folder with LLaMA as Meta publishes it.

    Args:
        source (FileSource): The folder.
        path (Path): Its ``params.json``, for messages.
        params (dict): The content of that file.

    Returns:
        tuple[dict, Tensors]: The fields of the model's ``config.json``, and its tensors
        under the names of ``transformers``' LLaMA layers.

    Raises:
        CheckpointError: Files are missing or do not fit each other, or the model is a
            mixture of experts.
    """
    for field in ('dim', 'n_heads', 'n_layers', 'norm_eps'):
        check(f'{path}: {field}', params.get(field), kind=(int, float), above=0)
    if params.get('moe') or params.get('moe_args'):
        raise CheckpointError(
            f'{path} describes a mixture of experts. Fix: choose a dense model.'
        )
    files = _open_files(source)
    if not files:
        refuse_mistral(source)
        raise CheckpointError(
            f"'{path}' has no consolidated.00.pth beside it. Fix: download all files again."
        )
    try:
        config = _config(params, files)
        return config, _join(files, config)
    except (LookupError, TypeError, ValueError, OverflowError) as e:
        raise CheckpointError(
            f"'{path}' and the {len(files)} file(s) consolidated.*.pth beside it are "
            f'not a whole LLaMA: {e!r}. Fix: download all files again.'
        ) from e


def _open_files(source: FileSource) -> list[Tensors]:
    """Open ``consolidated.00.pth``, ``consolidated.01.pth`` and so on, until one is missing.

    The files are not listed, because a hub repository cannot be listed offline.
    """
    files: list[Tensors] = []
    while True:
        path = source.find(f'consolidated.{len(files):02d}.pth')
        if path is None:
            return files
        files.append(open_torch(path))


def _config(params: dict[str, Any], files: Sequence[Tensors]) -> dict[str, Any]:
    """Return the fields that the model's ``config.json`` would have.

    Raises:
        ValueError: The files do not have as many query rows as ``params`` says.
    """
    rows = _count_rows(files, 'layers.0.attention.wq.weight')
    if rows != int(params['dim']):  # files are missing
        raise ValueError(f'{rows} query rows instead of {params["dim"]}')
    # The weights show the width of the MLP, which params.json has only as a formula of
    # three fields.
    hidden = _count_rows(files, 'layers.0.feed_forward.w1.weight')
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
        num_attention_heads=int(params['n_heads']),
        num_key_value_heads=int(params.get('n_kv_heads') or params['n_heads']),
        rms_norm_eps=float(params['norm_eps']),
        rope_parameters=rope,
    )


def _count_rows(files: Sequence[Tensors], name: str) -> int:
    """Return the sum of a tensor's rows in all files, over which its rows are split."""
    return sum(file[name]().shape[0] for file in files)


def _join(files: Sequence[Tensors], config: dict[str, Any]) -> Tensors:
    """Return the layers' tensors under Hugging Face's names, with the files' parts joined."""
    heads = {
        'attention.wq.weight': config['num_attention_heads'],
        'attention.wk.weight': config['num_key_value_heads'],
    }
    tensors = {}
    for stored in files[0]:
        # 'layers', its index, and the name in the layer.
        words = stored.split('.')
        layer = '.'.join(words[:2])
        name = '.'.join(words[2:])
        # A name that no LLaMA has stays as it is, to be refused with the layer.
        new_name, dim = LAYER_NAMES.get(name, (name, None))
        if dim is None:  # every file holds all of it
            dim = 0
            parts = [files[0][stored]]
        else:
            parts = [file[stored] for file in files]
        tensors[f'{layer}.{new_name}'] = partial(_read, parts, dim, heads.get(name))
    return tensors


def _read(parts: Sequence[Callable[[], Tensor]], dim: int, heads: int | None) -> Tensor:
    """Read a tensor's parts and join them.

    Args:
        parts (Sequence[Callable]): They read the parts.
        dim (int): The dimension along which the tensor is split.
        heads (int, optional): For a q or k projection the number of its heads: its rows
            are reordered.

    Raises:
        ValueError: The parts have different shapes.
    """
    if len(parts) == 1:
        weight = parts[0]()
    else:
        weights = [part() for part in parts]
        if any(w.shape != weights[0].shape for w in weights):
            raise ValueError('its parts in the files have different shapes')
        weight = torch.cat(weights, dim)
    if heads is None:
        return weight
    return rotary_rows_to_huggingface(weight, heads)
