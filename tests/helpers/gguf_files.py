"""GGUF files as llama.cpp's converter writes them."""

import numpy as np
import torch

from tests.helpers.families import random_model, rotary_rows_to_meta


def write_gguf(path, variant, kind='F32', fields=(), tensors=(), **changes) -> str:
    """Write a random model; return the path.

    Args:
        path (Path): The file.
        variant (str): A key of :data:`tests.helpers.families.FAMILIES`.
        kind (str): How matrices are stored, a name of gguf's quantization types.
        fields (dict): Additional fields, floating-point numbers.
        tensors (Sequence[str]): Names of additional tensors, which hold ones.
        **changes: Fields of the model's config.
    """
    import gguf

    model = random_model(variant, **changes)
    config = model.config
    arch = config.model_type.removesuffix('_text')
    writer = gguf.GGUFWriter(path, arch)
    for key, value in _fields_of(config).items():
        add = getattr(writer, f'add_{key}')
        add(value)
    for name in tensors:
        writer.add_tensor(name, np.ones(48, np.float32))
    for key, value in dict(fields).items():
        writer.add_float32(key, value)

    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[arch.upper()], len(model.layers))
    for name, weight in model.layers.state_dict(prefix='model.layers.').items():
        data = _as_converted(config, name, weight).contiguous().numpy()
        quantization = None
        if kind != 'F32' and data.ndim == 2 and data.shape[1] % 32 == 0:
            quantization = gguf.GGMLQuantizationType[kind]
            data = gguf.quants.quantize(data, quantization)
        name = names.get_name(name, ('.weight', '.bias'))
        writer.add_tensor(name, data, raw_dtype=quantization)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return str(path)


def _fields_of(config) -> dict:
    """What the converter writes of a config, by the names of gguf's ``add_...``."""
    rope = config.rope_parameters
    if config.model_type == 'gemma3_text':
        rope = rope['full_attention']
    fields = dict(
        block_count=config.num_hidden_layers,
        embedding_length=config.hidden_size,
        feed_forward_length=config.intermediate_size,
        token_list=['a', 'b'],
        head_count=config.num_attention_heads,
        head_count_kv=config.num_key_value_heads,
        layer_norm_rms_eps=config.rms_norm_eps,
        rope_freq_base=rope['rope_theta'],
    )
    if config.model_type in ('qwen3', 'gemma3_text'):
        fields['key_length'] = config.head_dim
    else:
        fields['rope_dimension_count'] = 8
    if config.model_type == 'gemma3_text':
        fields['sliding_window'] = config.sliding_window
    return fields


def _as_converted(config, name: str, weight: torch.Tensor) -> torch.Tensor:
    """llama's rows of q and k lie in pairs; gemma3's gains are whole, not minus one."""
    part = name.split('.')[-2]
    if config.model_type == 'llama' and part == 'q_proj':
        return rotary_rows_to_meta(weight, config.num_attention_heads)
    if config.model_type == 'llama' and part == 'k_proj':
        return rotary_rows_to_meta(weight, config.num_key_value_heads)
    if config.model_type == 'gemma3_text' and part.endswith('norm'):
        return weight + 1
    return weight
