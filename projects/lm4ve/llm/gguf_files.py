"""GGUF files, which llama.cpp writes: one file with the configuration and quantized weights.

``gguf.GGUFReader`` reads the header and maps the tensors, behind a check of bounds: the
library trusts every count in the file. A tensor is dequantized, some rows at a time, when
it is read.
"""

import importlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lm4ve.errors import CheckpointError, check
from lm4ve.llm.meta_layout import rotary_rows_to_huggingface
from lm4ve.llm.sources import Tensors

#: Values that are dequantized at a time, 4 MB in fp32.
_CHUNK = 1 << 20

#: Architecture, which is the model_type too -> whether the rows of q and k are in Meta's order.
#: llama.cpp leaves everything else of these layers as it is.
_ARCHITECTURES = dict(llama=True, qwen2=False, qwen3=False)
# Field of the header, after the architecture -> field of config.json.
_FIELDS = {
    'block_count': 'num_hidden_layers',
    'embedding_length': 'hidden_size',
    'feed_forward_length': 'intermediate_size',
    'attention.head_count': 'num_attention_heads',
    'attention.head_count_kv': 'num_key_value_heads',
    'attention.layer_norm_rms_epsilon': 'rms_norm_eps',
    'attention.key_length': 'head_dim',
}


def _open(path: Path) -> Any:
    """Open a file with ``gguf.GGUFReader``, bounded by the file's size."""
    gguf: Any = importlib.import_module('gguf')

    class BoundedReader(gguf.GGUFReader):  # type: ignore[misc]
        """Stops at the end of the file, and skips arrays: no field of ours is one."""

        def _get(self, offset: int, dtype: Any, count: int = 1, *args: Any, **kwargs: Any) -> Any:
            if not 0 <= offset + int(count) * np.dtype(dtype).itemsize <= len(self.data):
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
        tuple[dict, Tensors]: The fields of the model's ``config.json``, and its tensors under
        the names of ``transformers``' layers.

    Raises:
        CheckpointError: It is damaged, or scales its rotary embedding.
        UserError: The architecture is none of ``llama``, ``qwen2``, ``qwen3``.
    """
    try:
        reader = _open(path)
        fields = {k: f.contents() for k, f in reader.fields.items() if f.parts}
        tensors = {t.name: t for t in reader.tensors}
    except ModuleNotFoundError as e:
        raise CheckpointError(f'{path} needs the package gguf: pip install "lm4ve[gguf]".') from e
    except (ValueError, LookupError, OSError, OverflowError) as e:
        raise CheckpointError(f'{path} cannot be read as a GGUF file: {e}.') from e
    kind = str(fields.get('general.architecture'))
    check(f'the architecture of {path}', kind, choices=_ARCHITECTURES)
    config = _config(path, kind, fields, tensors)
    return config, _by_huggingface_name(tensors, config)


def _config(
    path: Path, kind: str, fields: dict[str, Any], tensors: dict[str, Any]
) -> dict[str, Any]:
    """Return the fields of the model's ``config.json``."""
    if any(k.startswith(f'{kind}.rope.scaling') for k in fields) or 'rope_freqs.weight' in tensors:
        # Left out, it would only be wrong with rotary=True, and there in silence.
        raise CheckpointError(
            f'{path} scales its rotary embedding (rope.scaling). Fix: use the safetensors release.'
        )
    config = {n: fields[f'{kind}.{f}'] for f, n in _FIELDS.items() if f'{kind}.{f}' in fields}
    config.setdefault('num_key_value_heads', config.get('num_attention_heads'))
    theta = float(fields.get(f'{kind}.rope.freq_base') or 1e4)
    config.update(model_type=kind, rope_parameters=dict(rope_type='default', rope_theta=theta))
    if kind == 'llama':
        config['attention_bias'] = 'blk.0.attn_q.bias' in tensors
    return config


def _by_huggingface_name(tensors: dict[str, Any], config: dict[str, Any]) -> Tensors:
    """Key the layers' tensors by ``transformers``' names."""
    import gguf

    kinds = {name: arch for arch, name in gguf.MODEL_ARCH_NAMES.items()}
    depth = min(int(config['num_hidden_layers']), len(tensors))
    table = gguf.get_tensor_name_map(kinds[config['model_type']], depth).mapping
    heads = {'.q_proj.': config['num_attention_heads'], '.k_proj.': config['num_key_value_heads']}
    rotated = heads if _ARCHITECTURES[config['model_type']] else {}
    found = {}
    for name, (_, stored) in table.items():
        # Of a tensor's names in many programs, the one of transformers' decoders.
        if not (name.startswith('model.layers.') and name.split('.')[2].isdigit()):
            continue
        for suffix in ('.weight', '.bias'):
            if (tensor := tensors.get(stored + suffix)) is None:
                continue
            count = next((n for part, n in rotated.items() if part in name + suffix), None)
            # GGUF counts from the fastest dimension.
            shape = tuple(int(n) for n in tensor.shape[::-1])
            found[name + suffix] = partial(_read, tensor, shape, count)
    return found


def _read(stored: Any, shape: tuple[int, ...], heads: int | None) -> Tensor:
    """Return one tensor, dequantized to float32; with ``heads`` it is a rotated projection."""
    from gguf.quants import dequantize

    weight = torch.empty(shape)
    rows = weight.view(-1, shape[-1])
    data = np.reshape(stored.data, (len(rows), -1))
    step = max(1, _CHUNK // shape[-1])
    for i in range(0, len(rows), step):
        piece = dequantize(data[i : i + step], stored.tensor_type)
        rows[i : i + step] = torch.from_numpy(np.array(piece, np.float32))
    if heads is None:
        return weight
    return rotary_rows_to_huggingface(weight.view(shape[0], -1), heads).view(shape)
