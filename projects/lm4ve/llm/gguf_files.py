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
_ARCHITECTURES = {
    'llama': 'llama',
    'qwen2': 'qwen2',
    'qwen3': 'qwen3',
    'gemma3': 'gemma3_text',
}
# Field of the header, after the architecture -> field of config.json. The head's width
# is there three times.
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
}
# Further fields, which do not concern layers or are read by hand.
_OTHER_FIELDS = {
    'context_length',
    'vocab_size',
    'rope.freq_base',
}
_GEMMA3_FIELDS = {
    'attention.sliding_window',
    'rope.freq_base_swa',
}
# Part of a layer -> transformers' name of it.
_PARTS = {
    'attn_q': 'self_attn.q_proj',
    'attn_k': 'self_attn.k_proj',
    'attn_v': 'self_attn.v_proj',
    'attn_q_norm': 'self_attn.q_norm',
    'attn_k_norm': 'self_attn.k_norm',
    'attn_output': 'self_attn.o_proj',
    'attn_norm': 'input_layernorm',
    'ffn_gate': 'mlp.gate_proj',
    'ffn_up': 'mlp.up_proj',
    'ffn_down': 'mlp.down_proj',
    'ffn_norm': 'post_attention_layernorm',
}
# What gemma3 has instead or beside.
_GEMMA3_PARTS = {
    'post_attention_norm': 'post_attention_layernorm',
    'ffn_norm': 'pre_feedforward_layernorm',
    'post_ffw_norm': 'post_feedforward_layernorm',
}
_TENSOR = re.compile(r'blk\.(\d+)\.(.+)\.(\w+)')


def _open(path: Path) -> Any:
    """Open a file with ``gguf.GGUFReader``, bounded by the file's size."""
    gguf: Any = importlib.import_module('gguf')

    class BoundedReader(gguf.GGUFReader):  # type: ignore[misc]
        """Stops at the end of the file, and skips arrays: no field of ours is one."""

        def _get(
            self, offset: int, dtype: Any, count: int = 1, *args: Any, **kwargs: Any
        ) -> Any:
            """Read numbers of a type at an offset, which must end within the file.

            Raises:
                ValueError: They would end beyond it.
            """
            end = offset + int(count) * np.dtype(dtype).itemsize
            if not 0 <= end <= len(self.data):
                raise ValueError('it is cut off, or a count in it goes beyond its end')
            return super()._get(offset, dtype, count, *args, **kwargs)

        def _get_field_parts(self, orig_offs: int, raw_type: int) -> Any:
            """Read a field's value, or only the size of an array.

            Returns:
                tuple: As the library's method: size in bytes, parts, indices of the data
                among the parts, types. An array gets no parts.
            """
            if raw_type != gguf.GGUFValueType.ARRAY:
                return super()._get_field_parts(orig_offs, raw_type)
            # An array is the type of its entries, their number, and the entries.
            kind = int(self._get(orig_offs, np.uint32)[0])
            count = int(self._get(orig_offs + 4, np.uint64)[0])
            end = orig_offs + 12
            if kind == gguf.GGUFValueType.STRING:
                for _ in range(count):
                    length = int(self._get(end, np.uint64)[0])
                    end += 8 + length
            else:
                end += count * np.dtype(self.gguf_scalar_to_np[kind]).itemsize
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
        tensors = {tensor.name: tensor for tensor in reader.tensors}
        config = _config(path, _fields(reader), tensors)
        return config, _by_huggingface_name(tensors, config)
    except ModuleNotFoundError as e:
        raise CheckpointError(
            f'{path} needs the package gguf: pip install "lm4ve[gguf]".'
        ) from e
    except UserError:
        raise
    except (ValueError, LookupError, TypeError, OSError, OverflowError) as e:
        raise CheckpointError(f'{path} cannot be read as a GGUF file: {e}.') from e


def _fields(reader: Any) -> dict[str, Any]:
    """Return the header's fields; arrays, which were skipped, as None."""
    fields = {}
    for name, field in reader.fields.items():
        fields[name] = field.contents() if field.parts else None
    return fields


def _config(
    path: Path, fields: dict[str, Any], tensors: dict[str, Any]
) -> dict[str, Any]:
    """Return the fields that the model's ``config.json`` would have.

    Args:
        path (Path): The file, for errors.
        fields (dict): The fields of its header.
        tensors (dict): Its tensors by their stored names.

    Raises:
        CheckpointError: A field of the architecture is not read here.
        UserError: The architecture is unknown, or two fields contradict each other.
    """
    architecture = str(fields.get('general.architecture'))
    check(f'the architecture of {path}', architecture, choices=_ARCHITECTURES)
    own = {}
    for name, value in fields.items():
        if name.startswith(f'{architecture}.'):
            own[name.removeprefix(f'{architecture}.')] = value
    _check_all_read(path, architecture, own, tensors)
    config: dict[str, Any] = dict(
        model_type=_ARCHITECTURES[architecture],
        rope_parameters=_rope(own.get('rope.freq_base') or 1e4),
    )
    for field, name in _FIELDS.items():
        if field not in own:
            continue
        known = config.setdefault(name, own[field])
        require(
            own[field] == known,
            f'{path} has {field}={own[field]}, and another field that says {known}. '
            'Fix: a whole file.',
        )
    config.setdefault('num_key_value_heads', config['num_attention_heads'])
    if architecture == 'llama':
        config['attention_bias'] = 'blk.0.attn_q.bias' in tensors
    if architecture == 'gemma3':
        _complete_gemma3(config, own)
    return config


def _check_all_read(
    path: Path, architecture: str, own: dict[str, Any], tensors: dict[str, Any]
) -> None:
    """Refuse fields that are not read here: a model without them would be silently wrong.

    The scaling of a rotary embedding is one of them, as fields or as a tensor.

    Args:
        path (Path): The file, for the error.
        architecture (str): The architecture of the model.
        own (dict): The architecture's fields of the header.
        tensors (dict): The tensors by their stored names.

    Raises:
        CheckpointError: It names the fields.
    """
    read = set(_FIELDS) | _OTHER_FIELDS
    if architecture == 'gemma3':
        read |= _GEMMA3_FIELDS
    unknown = [name for name in own if name not in read]
    if 'rope_freqs.weight' in tensors:
        unknown.append('rope_freqs.weight')
    if unknown:
        raise CheckpointError(
            f'{path} has {listing(unknown)}, which is not read. Fix: use the '
            'safetensors release.'
        )


def _complete_gemma3(config: dict[str, Any], own: dict[str, Any]) -> None:
    """Add fields of gemma3's configuration that a GGUF file does not store.

    llama.cpp sets them by the architecture, and one of them for the 27B by its depth.

    Args:
        config (dict): Changed in place.
        own (dict): The architecture's fields of the header.
    """
    config['rope_parameters'] = dict(
        full_attention=config['rope_parameters'],
        sliding_attention=_rope(own.get('rope.freq_base_swa', 1e4)),
    )
    config['sliding_window'] = own['attention.sliding_window']
    config['query_pre_attn_scalar'] = config['head_dim']
    is_27b = config['num_hidden_layers'] == 62
    if is_27b:
        width = config['hidden_size'] // config['num_attention_heads']
        config['query_pre_attn_scalar'] = width


def _rope(base: float) -> dict[str, Any]:
    """Return the parameters of a rotary embedding without scaling."""
    return dict(rope_type='default', rope_theta=float(base))


def _by_huggingface_name(tensors: dict[str, Any], config: dict[str, Any]) -> Tensors:
    """Return the layers' tensors by ``transformers``' names; other tensors are left out.

    Args:
        tensors (dict): The tensors by their stored names.
        config (dict): The fields of the model's ``config.json``.
    """
    names = dict(_PARTS)
    is_gemma3 = config['model_type'] == 'gemma3_text'
    if is_gemma3:
        names.update(_GEMMA3_PARTS)
    rotated_heads = {}
    if config['model_type'] == 'llama':
        rotated_heads['attn_q'] = config['num_attention_heads']
        rotated_heads['attn_k'] = config['num_key_value_heads']
    layers = {}
    for stored, tensor in tensors.items():
        match = _TENSOR.fullmatch(stored)
        if match is None:
            continue
        index, part, suffix = match.groups()
        # A name that no such layer has stays as it is, to be refused with the layer.
        name = f'model.layers.{index}.{names.get(part, part)}.{suffix}'
        # GGUF stores the sizes of the dimensions in reverse order.
        shape = tuple(int(n) for n in tensor.shape[::-1])
        shift = 0.0
        if is_gemma3 and part.endswith('norm'):
            shift = 1.0
        layers[name] = partial(_read, tensor, shape, rotated_heads.get(part), shift)
    return layers


def _read(
    stored: Any, shape: tuple[int, ...], heads: int | None, shift: float
) -> Tensor:
    """Read one tensor and dequantize it to float32, some rows at a time.

    Args:
        stored (ReaderTensor): The stored tensor, a map of the file.
        shape (tuple[int, ...]): The tensor's shape.
        heads (int, optional): For a projection in Meta's order of rows the number of its
            heads: its rows are reordered.
        shift (float): Subtracted from all values.
    """
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
