"""GGUF files, which llama.cpp writes: one file with the configuration and quantized weights.

``gguf.GGUFReader`` reads the header and maps the tensors, behind a check of bounds: the
library trusts every count in the file. A tensor is dequantized, some rows at a time,
when it is read.
"""

import importlib
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lm4ve.errors import CheckpointError, UserError, check, listing, require
from lm4ve.llm.meta_layout import rotary_rows_to_huggingface
from lm4ve.llm.sources import Tensors

#: Values that are dequantized at a time, 4 MB in fp32.
_CHUNK = 1 << 20

#: Architecture -> model_type. llama.cpp stores q and k of llama in Meta's order of
#: rows, and gains of gemma3 as what they are, not less one.
_ARCHITECTURES = dict(llama='llama', qwen2='qwen2', qwen3='qwen3', gemma3='gemma3_text')
# Field of the header, after the architecture -> field of config.json. The head's width
# is there three times. A field without a name does not concern layers, or is read
# below.
_FIELDS = {
    'block_count': 'num_hidden_layers',
    'embedding_length': 'hidden_size',
    'feed_forward_length': 'intermediate_size',
    'attention.head_count': 'num_attention_heads',
    'attention.head_count_kv': 'num_key_value_heads',
    'attention.layer_norm_rms_epsilon': 'rms_norm_eps',
    'attention.key_length': 'head_dim',
    'attention.value_length': 'head_dim',
    'rope.dimension_count': 'head_dim',
    **dict.fromkeys(('context_length', 'vocab_size', 'rope.freq_base'), ''),
}
_GEMMA3_FIELDS = {'attention.sliding_window', 'rope.freq_base_swa'}
# Part of a layer -> transformers' name of it.
_PARTS = dict(
    **{f'attn_{x}': f'self_attn.{x}_proj' for x in 'qkv'},
    **{f'attn_{x}_norm': f'self_attn.{x}_norm' for x in 'qk'},
    **{f'ffn_{x}': f'mlp.{x}_proj' for x in ('gate', 'up', 'down')},
    **dict(attn_output='self_attn.o_proj', attn_norm='input_layernorm'),
)
_NORMS = dict(ffn_norm='post_attention_layernorm')
_GEMMA3_NORMS = dict(
    **dict(
        post_attention_norm='post_attention_layernorm',
        ffn_norm='pre_feedforward_layernorm',
    ),
    post_ffw_norm='post_feedforward_layernorm',
)


def _open(path: Path) -> Any:
    """Open a file with ``gguf.GGUFReader``, bounded by the file's size."""
    gguf: Any = importlib.import_module('gguf')

    class BoundedReader(gguf.GGUFReader):  # type: ignore[misc]
        """Stops at the end of the file, and skips arrays: no field of ours is one."""

        def _get(
            self, offset: int, dtype: Any, count: int = 1, *args: Any, **kwargs: Any
        ) -> Any:
            if (
                not 0
                <= offset + int(count) * np.dtype(dtype).itemsize
                <= len(self.data)
            ):
                raise ValueError('it is cut off, or a count in it goes beyond its end')
            return super()._get(offset, dtype, count, *args, **kwargs)

        def _get_field_parts(self, orig_offs: int, raw_type: int) -> Any:
            if raw_type != gguf.GGUFValueType.ARRAY:
                return super()._get_field_parts(orig_offs, raw_type)
            kind, start = int(self._get(orig_offs, np.uint32)[0]), orig_offs + 12
            count = int(self._get(orig_offs + 4, np.uint64)[0])
            if kind == gguf.GGUFValueType.STRING:
                end = start
                for _ in range(count):
                    end += 8 + int(self._get(end, np.uint64)[0])
            else:
                end = start + count * np.dtype(self.gguf_scalar_to_np[kind]).itemsize
            return end - orig_offs, [], [], [gguf.GGUFValueType.ARRAY]

    return BoundedReader(path)


def open_gguf(path: Path) -> tuple[dict[str, Any], Tensors]:
    """Open a ``*.gguf`` file.

    Returns:
        tuple[dict, Tensors]: The fields of the model's ``config.json``, and its tensors
        under the names of ``transformers``' layers.

    Raises:
        CheckpointError: It is damaged, scales its rotary embedding, or has fields that
            no config.json of these has.
        UserError: The architecture is none of :data:`_ARCHITECTURES`.
    """
    try:
        reader = _open(path)
        fields = {
            k: f.contents() if f.parts else None for k, f in reader.fields.items()
        }
        tensors = {t.name: t for t in reader.tensors}
        config = _config(path, fields, tensors)
        return config, _by_huggingface_name(tensors, config)
    except ModuleNotFoundError as e:
        raise CheckpointError(
            f'{path} needs the package gguf: pip install "lm4ve[gguf]".'
        ) from e
    except UserError:
        raise
    except (ValueError, LookupError, TypeError, OSError, OverflowError) as e:
        raise CheckpointError(f'{path} cannot be read as a GGUF file: {e}.') from e


def _config(
    path: Path, fields: dict[str, Any], tensors: dict[str, Any]
) -> dict[str, Any]:
    """Return the fields of the model's ``config.json``."""
    kind = str(fields.get('general.architecture'))
    check(f'the architecture of {path}', kind, choices=_ARCHITECTURES)
    own = {
        k.removeprefix(f'{kind}.'): v
        for k, v in fields.items()
        if k.startswith(f'{kind}.')
    }
    read = _FIELDS.keys() | (_GEMMA3_FIELDS if kind == 'gemma3' else {})
    unknown = [*(own.keys() - read), *(tensors.keys() & {'rope_freqs.weight'})]
    if (
        unknown
    ):  # left out, they would be wrong in silence (rope.scaling only with rotary=True)
        raise CheckpointError(
            f'{path} has {listing(unknown)}, which is not read. Fix: use the safetensors release.'
        )
    rope = dict(rope_type='default', rope_theta=float(own.get('rope.freq_base') or 1e4))
    config: dict[str, Any] = dict(model_type=_ARCHITECTURES[kind], rope_parameters=rope)
    for field, name in _FIELDS.items():
        if name and field in own:
            known = config.setdefault(name, own[field])
            require(
                own[field] == known,
                f'{path} has {field}={own[field]}, and another field that says {known}. Fix: a '
                'whole file.',
            )
    config.setdefault('num_key_value_heads', config['num_attention_heads'])
    if kind == 'llama':
        config['attention_bias'] = 'blk.0.attn_q.bias' in tensors
    if (
        kind == 'gemma3'
    ):  # llama.cpp has the rest by the architecture, and the 27B by its depth
        local = dict(rope, rope_theta=float(own.get('rope.freq_base_swa', 1e4)))
        config['rope_parameters'] = dict(full_attention=rope, sliding_attention=local)
        config['sliding_window'] = own['attention.sliding_window']
        is_27b = config['num_hidden_layers'] == 62
        width = config['hidden_size'] // config['num_attention_heads']
        config['query_pre_attn_scalar'] = width if is_27b else config['head_dim']
    return config


def _by_huggingface_name(tensors: dict[str, Any], config: dict[str, Any]) -> Tensors:
    """Key the layers' tensors by ``transformers``' names."""
    kind = config['model_type']
    heads = dict(
        attn_q=config['num_attention_heads'], attn_k=config['num_key_value_heads']
    )
    parts = {**_PARTS, **(_GEMMA3_NORMS if kind == 'gemma3_text' else _NORMS)}
    found = {}
    for match in filter(
        None, map(re.compile(r'blk\.(\d+)\.(.+)\.(\w+)').fullmatch, tensors)
    ):
        (index, part, suffix), tensor = match.groups(), tensors[match[0]]
        count = heads.get(part) if kind == 'llama' else None
        shift = float(kind == 'gemma3_text' and part.endswith('norm'))
        # GGUF counts from the fastest dimension.
        shape = tuple(int(n) for n in tensor.shape[::-1])
        # A name that no such layer has stays as it is, to be refused with the layer.
        target = f'model.layers.{index}.{parts.get(part, part)}.{suffix}'
        found[target] = partial(_read, tensor, shape, count, shift)
    return found


def _read(
    stored: Any, shape: tuple[int, ...], heads: int | None, shift: float
) -> Tensor:
    """Return one tensor less ``shift`` in float32; with ``heads`` it is a rotated projection."""
    from gguf.quants import dequantize

    weight = torch.empty(shape)
    rows = weight.view(-1, shape[-1])
    data = np.reshape(stored.data, (len(rows), -1))
    step = max(1, _CHUNK // shape[-1])
    for i in range(0, len(rows), step):
        piece = dequantize(data[i : i + step], stored.tensor_type)
        rows[i : i + step] = torch.from_numpy(np.array(piece, np.float32)) - shift
    if heads is None:
        return weight
    return rotary_rows_to_huggingface(weight.view(shape[0], -1), heads).view(shape)
