"""Tiny random language models of every supported family, in real file layouts.

For tests of anything that needs a language model checkpoint:

- :data:`FAMILIES` maps a variant's name to config fields, which are also what
  ``LLMBlock(arch=...)`` takes; :data:`FAST` are those of families with a spec;
- :func:`random_model` builds ``transformers``' own model of a variant;
- :func:`write_huggingface` and :func:`write_meta` write the same model as a
  checkpoint folder, in every layout that is found in the wild.

The values are multiples of 1/64 below 4, so that fp32, fp16 and bf16 files hold
the same weights. Norm gains and biases are random too: a parity test of a model
with unit gains would not notice a norm that was left out.
"""

import json
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForTextEncoding,
    PreTrainedModel,
)

from lm4ve.blocks import FAMILIES as ROWS
from tests.helpers.own_families import GQA, OWN_FAMILIES, SIZES

# A head width that does not follow from the others, as real ones of gemma.
_GEMMA = dict(GQA, head_dim=16)
_GEMMA2 = dict(_GEMMA, query_pre_attn_scalar=24, sliding_window=3, layer_types=None)
_GEMMA3 = dict(_GEMMA2, sliding_window_pattern=2)
# Head widths of t5 do not follow from the others either.
_T5 = dict(SIZES, d_kv=16, d_ff=48, num_layers=2, num_heads=4)
_MOE = dict(_GEMMA, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24)
_LLAMA4 = dict(_GEMMA, intermediate_size_mlp=48, num_local_experts=4, moe_layers=[0])
_GLM4_MOE = dict(_MOE, n_routed_experts=4, first_k_dense_replace=1)
_NEXT = dict(layer_types=['full_attention'] * 2, partial_rotary_factor=0.5)
_CAP = dict(attn_logit_softcapping=2.0)
_FALCON = dict(num_kv_heads=2, new_decoder_architecture=True, alibi=False)
# Windows are shorter than the tests' sequences.
_SLIDING = dict(layer_types=['sliding_attention', 'full_attention'], sliding_window=3)
_SLIDING_LAST = dict(
    layer_types=['full_attention', 'sliding_attention'],
    sliding_window=3,
    use_sliding_window=True,
)
_GEMMA4 = dict(
    _GEMMA,
    **_SLIDING,
    global_head_dim=24,
    hidden_size_per_layer_input=0,
    num_kv_shared_layers=0,
)


_SCALED = dict(
    rope_parameters=dict(
        rope_type='default',
        rope_theta=1e4,
        llama_4_scaling_beta=0.1,
        original_max_position_embeddings=64,
    )
)


def _mrope(*section: int) -> dict:
    rope = dict(rope_type='default', rope_theta=1e4, mrope_section=list(section))
    return dict(rope_parameters=rope)


def _of(model_type: str, sizes: dict = SIZES, **fields) -> dict:
    return dict(sizes, model_type=model_type, **fields)


def _each(sizes: dict, names: str) -> dict[str, dict]:
    return {name: _of(name, sizes) for name in names.split()}


#: Name of a variant -> config fields of it.
FAMILIES: dict[str, dict] = {
    'llama': _of('llama', rms_norm_eps=1e-5),
    'llama-gqa': _of('llama', GQA, rms_norm_eps=1e-5),
    'llama-bias': _of('llama', GQA, attention_bias=True, mlp_bias=True),
    # Decoders of LLaMA's layout, and others with the usual fields.
    **_each(
        GQA, 'qwen2 nemotron olmo cohere apertus apertus1p5_text nanochat olmo2 jais2'
    ),
    **_each(GQA, 'eurobert'),
    'PanguEmbedded': _of('PanguEmbedded', GQA, bias=True, rope_theta=4e6),
    'PanguEmbedded-without-bias': _of('PanguEmbedded', GQA, bias=False),
    **_each(
        _GEMMA, 'qwen3 gemma seed_oss internlm3 glm glm4 hunyuan_v1_dense iquestcoder'
    ),
    **{f'{n}-sliding': _of(n, _GEMMA, **_SLIDING_LAST) for n in ('qwen2', 'qwen3')},
    'phi3': _of('phi3', GQA, sliding_window=3),
    'cwm': _of('cwm', _GEMMA, **_SLIDING),
    **_each(dict(GQA, **_SLIDING), 'olmo3 exaone4 cohere2'),
    'granite_swa': _of('granite_swa', GQA, layer_rope_theta=[0, 100.0], **_SLIDING),
    'mistral': _of('mistral', GQA, sliding_window=2),
    'ministral': _of('ministral', _GEMMA, sliding_window=2),
    'ministral3': _of('ministral3', _GEMMA, **_SCALED),
    **_each(dict(GQA, **_mrope(1, 2, 1)), 'qwen2_vl_text qwen2_5_vl_text'),
    'qwen3_vl_text': _of('qwen3_vl_text', _GEMMA, **_mrope(4, 2, 2)),
    'arcee': _of('arcee', GQA, mlp_bias=True),
    'granite': _of('granite', GQA, residual_multiplier=0.22, attention_multiplier=0.1),
    'smollm3': _of('smollm3', GQA, no_rope_layers=[1, 0], **_SLIDING_LAST),
    'starcoder2': _of('starcoder2', GQA, residual_dropout=0.1, sliding_window=2),
    'olmo-clip': _of('olmo', GQA, clip_qkv=0.5),
    # Rotation of neighbors, norms of queries and keys, norms on outputs.
    'ernie4_5': _of('ernie4_5', _GEMMA, use_bias=True),
    'helium': _of('helium', GQA, head_dim=8),
    'gemma2': _of('gemma2', _GEMMA2, **_CAP),
    'gemma3_text': _of('gemma3_text', _GEMMA3, **_CAP),
    'gemma3-both-ways': _of('gemma3_text', _GEMMA3, use_bidirectional_attention=True),
    # Branches side by side.
    'cohere-qk-norm': _of('cohere', GQA, use_qk_norm=True),
    'phi': _of('phi', GQA, partial_rotary_factor=0.5),
    'phi-qk-norm': _of('phi', partial_rotary_factor=0.5, qk_layernorm=True),
    'stablelm': _of('stablelm', GQA, use_qkv_bias=True),
    'stablelm-parallel': _of(
        'stablelm', GQA, use_parallel_residual=True, qk_layernorm=True
    ),
    'gpt_neox': _of('gpt_neox', rotary_pct=0.5, use_parallel_residual=True),
    'gpt_neox-serial': _of('gpt_neox', use_parallel_residual=False),
    'falcon-rw': _of(
        'falcon', multi_query=False, parallel_attn=False, bias=True, alibi=False
    ),
    'falcon-7b': _of('falcon', multi_query=True, alibi=False),
    'falcon-40b': _of('falcon', **_FALCON),
    'falcon-11b': _of('falcon', num_ln_in_parallel_attn=1, **_FALCON),
    **_each(dict(SIZES, rotary_dim=4), 'gptj codegen'),
    # The line of GPT-2, and encoders.
    **_each(
        SIZES,
        'gpt2 persimmon biogpt bert roberta xlm-roberta camembert ernie megatron-bert',
    ),
    **_each(
        SIZES,
        'data2vec-text roberta-prelayernorm bert-generation rembert roc_bert layoutlm',
    ),
    'gpt2-scaled': _of('gpt2', scale_attn_by_inverse_layer_idx=True),
    'gpt_bigcode': _of('gpt_bigcode', multi_query=True),
    'gpt_bigcode-heads': _of('gpt_bigcode', multi_query=False),
    'gpt_neo': _of(
        'gpt_neo', attention_types=[[['local', 'global'], 1]], window_size=3
    ),
    'xglm': _of('xglm', ffn_dim=48, attention_heads=4),
    'opt': _of('opt', ffn_dim=48, word_embed_proj_dim=32),
    'opt-350m': _of(
        'opt', ffn_dim=48, word_embed_proj_dim=16, do_layer_norm_before=False
    ),
    'electra': _of('electra', embedding_size=16),
    'distilbert': _of('distilbert', hidden_dim=48),
    'albert': _of('albert', embedding_size=16, num_hidden_groups=2),
    'albert-shared': _of('albert', embedding_size=16),
    'modernbert': _of(
        'modernbert', layer_types=_SLIDING['layer_types'], local_attention=4
    ),
    't5': _of('t5', _T5),
    'mt5': _of('mt5', _T5, feed_forward_proj='gated-gelu'),
    # Mixtures of experts, and layers beside others without attention.
    'mixtral': _of('mixtral', GQA, num_local_experts=4, sliding_window=3),
    'solar_open': _of('solar_open', _GLM4_MOE),
    'glm4_moe': _of('glm4_moe', _GLM4_MOE, use_qk_norm=True),
    'mellum': _of('mellum', _MOE, **_SLIDING),
    'minimax_m2': _of('minimax_m2', _GEMMA, num_local_experts=4, num_experts_per_tok=2),
    'qwen2_moe': _of('qwen2_moe', _MOE, shared_expert_intermediate_size=24),
    'qwen3_moe': _of('qwen3_moe', _MOE, mlp_only_layers=[1]),
    'olmoe': _of('olmoe', _MOE, head_dim=8, clip_qkv=0.5),
    'gpt_oss': _of(
        'gpt_oss', _GEMMA, num_local_experts=4, num_experts_per_tok=2, **_SLIDING
    ),
    'llama4_text': _of(
        'llama4_text', _LLAMA4, no_rope_layers=[1, 0], attention_chunk_size=3
    ),
    'qwen3_next': _of('qwen3_next', _MOE, **_NEXT),
    'qwen3_5_text': _of('qwen3_5_text', GQA, **_NEXT),
    'lfm2': _of('lfm2', GQA, layer_types=['full_attention'] * 2),
    'gemma4_text': _of('gemma4_text', _GEMMA4),
    'gemma4-keys-as-values': _of('gemma4_text', _GEMMA4, attention_k_eq_v=True),
}

#: Variants of families with a spec, which the fast layer runs.
FAST = [
    variant
    for variant, fields in FAMILIES.items()
    if ROWS[fields['model_type']].spec is not None
]

#: How the weights of a Hugging Face folder may be laid out.
LAYOUTS = ('safetensors', 'sharded-safetensors', 'bin', 'sharded-bin', 'legacy-bin')


def config_of(variant: str, **changes):
    """Return ``transformers``' config of a variant, or of a family without a spec."""
    fields = FAMILIES[variant] if variant in FAMILIES else OWN_FAMILIES[variant]
    fields = dict(fields, **changes)
    family = fields.pop('model_type')
    if family == 'PanguEmbedded':  # which the library lacks: its LLaMA, with biases
        fields['attention_bias'] = fields.pop('bias')
        family = 'llama'
    return AutoConfig.for_model(family, **fields)


def random_model(variant: str, seed: int = 0, **changes) -> PreTrainedModel:
    """Build a variant's model with every weight random, in eval mode.

    Attention is 'eager', which obeys any explicit additive mask.

    Args:
        variant (str): A key of :data:`FAMILIES` or of
            :data:`tests.helpers.own_families.OWN_FAMILIES`.
        seed (int): Same seed, same weights.
        **changes: Other config fields.
    """
    return _random_model(variant, seed, json.dumps(changes, sort_keys=True))


@cache
def _random_model(variant: str, seed: int, changes: str) -> PreTrainedModel:
    config = config_of(variant, **json.loads(changes))
    config._attn_implementation = 'eager'
    auto = AutoModelForTextEncoding if config.is_encoder_decoder else AutoModel
    with torch.random.fork_rng(devices=[]):
        model = auto.from_config(config)
    model.eval()
    model.requires_grad_(False)
    _open_own_masks(model)
    generator = torch.Generator().manual_seed(seed)
    for param in model.parameters():
        noise = torch.randn(param.shape, generator=generator)
        if param.dim() == 1:
            # On top of the initial value: 1 for most gains, 0 for gemma's.
            value = param + 0.2 * noise
        else:
            value = 0.12 * noise
        param.copy_((value * 64).round() / 64)
    for name, buffer in model.named_buffers():
        if name.endswith('layer_scalar'):  # gemma4's factor of a layer, 1 at first
            buffer.fill_(0.75)
        elif name.endswith(('e_score_correction_bias', 'expert_bias')):
            buffer.copy_(torch.randn(buffer.shape, generator=generator).round())
    return model


def _open_own_masks(model: nn.Module) -> None:
    """Let gpt_neo's layers see everything; keep their causal masks as ``own_mask``."""
    for module in model.modules():
        bias = getattr(module, 'bias', None)
        if isinstance(bias, Tensor) and bias.dtype == torch.bool:
            module.own_mask = bias.clone()
            bias.fill_(True)


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """Return the list of a model's layers."""
    config = model.config.get_text_config()
    count = config.num_hidden_layers
    if config.model_type == 'albert':
        groups = model.encoder.albert_layer_groups
        return nn.ModuleList(groups[i * len(groups) // count] for i in range(count))
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise LookupError(f'{config.model_type} has no list of {count} layers')


def write_huggingface(
    folder,
    family,
    layout='safetensors',
    seed=0,
    dtype=torch.float32,
    rename=str,
    extra=(),
    **more,
) -> Path:
    """Write a random tiny model as a Hugging Face checkpoint folder.

    Args:
        folder (Path): Created if need be.
        family (str): A key of :data:`FAMILIES`.
        layout (str): One of :data:`LAYOUTS`. Sharded ones have one shard for
            each layer and one for the rest.
        seed (int): Of the weights.
        dtype (torch.dtype): Of the files.
        rename (callable, optional): From the bare model's tensor names to the
            names in the files, for other prefixes.
        extra (dict[str, Tensor], optional): More tensors to write.
        **more: Other config fields.

    Returns:
        Path: ``folder``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model = random_model(family, seed, **more)
    _write_model(folder, model, layout, dtype, rename, extra)
    if family in FAMILIES and FAMILIES[family]['model_type'] == 'PanguEmbedded':
        _write_released_config(folder / 'config.json')
    return folder


def _write_released_config(file: Path) -> None:
    """Write LLaMA's configuration as openPangu is released, by its own names."""
    fields = json.loads(file.read_text())
    released = dict(
        architectures=['PanguEmbeddedForCausalLM'],
        auto_map={'AutoConfig': 'configuration_openpangu_dense.PanguEmbeddedConfig'},
        model_type='PanguEmbedded',
        bias=fields.pop('attention_bias'),
        rope_theta=fields.pop('rope_parameters')['rope_theta'],
    )
    file.write_text(json.dumps(fields | released))


def _write_model(folder, model, layout, dtype, rename, extra) -> None:
    """Write the files of :func:`write_huggingface`."""
    if layout == 'safetensors' and rename is str and not extra:
        # A copy, since a dtype is for the whole model.
        copy = type(model)(model.config)
        copy.load_state_dict(model.state_dict())
        copy.to(dtype).save_pretrained(folder)
        return
    model.config.save_pretrained(folder)
    state = {
        rename(name): tensor.to(dtype, copy=True).contiguous()
        for name, tensor in model.state_dict().items()
    }
    state.update(extra)
    name = 'pytorch_model.bin'
    if layout.endswith('safetensors'):
        name = 'model.safetensors'
    if layout.startswith('sharded'):
        _write_shards(state, folder / name)
    else:
        _write_state(state, folder / name, zipped=layout != 'legacy-bin')


def _write_state(state: dict[str, Tensor], file: Path, zipped: bool = True) -> None:
    if file.suffix == '.safetensors':
        save_file(state, file, metadata={'format': 'pt'})
    else:
        torch.save(state, file, _use_new_zipfile_serialization=zipped)


def _write_shards(state: dict[str, Tensor], file: Path) -> None:
    """Write a shard for each layer, one for the rest, and the index."""
    layers = {name: _layer_of(name) for name in state}
    count = max(layers.values()) + 2
    weight_map = {}
    for layer in sorted(set(layers.values())):
        part = {name: state[name] for name in state if layers[name] == layer}
        shard = file.with_stem(f'{file.stem}-{layer + 2:05d}-of-{count:05d}')
        _write_state(part, shard)
        weight_map.update(dict.fromkeys(part, shard.name))
    index = dict(metadata=dict(total_size=1), weight_map=weight_map)
    file.with_name(f'{file.name}.index.json').write_text(json.dumps(index))


def _layer_of(name: str) -> int:
    """Return the number of the layer that a tensor belongs to; -1 for none."""
    for part in name.split('.'):
        if part.isdigit():
            return int(part)
    return -1


# Meta's name of each tensor of a layer, and the dimension that is split over
# the files of a model-parallel release.
_META_LAYER = {
    'self_attn.q_proj': ('attention.wq', 0),
    'self_attn.k_proj': ('attention.wk', 0),
    'self_attn.v_proj': ('attention.wv', 0),
    'self_attn.o_proj': ('attention.wo', 1),
    'mlp.gate_proj': ('feed_forward.w1', 0),
    'mlp.down_proj': ('feed_forward.w2', 1),
    'mlp.up_proj': ('feed_forward.w3', 0),
    'input_layernorm': ('attention_norm', None),
    'post_attention_layernorm': ('ffn_norm', None),
}


def write_meta(
    folder: Path,
    shards=1,
    family='llama',
    seed=0,
    dtype=torch.float32,
    sizes=None,
    **params,
) -> Path:
    """Write a random tiny LLaMA as Meta does.

    The weights are those of ``write_huggingface(folder, family, seed=seed)``,
    with the rows of q and k in Meta's order.

    Args:
        folder (Path): Created if need be.
        shards (int): Number of ``consolidated.NN.pth`` files.
        family (str): 'llama' or 'llama-gqa'.
        seed (int): Of the weights.
        dtype (torch.dtype): Of the files.
        sizes (dict, optional): Other config fields.
        **params: More entries of ``params.json``.

    Returns:
        Path: ``folder``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model = random_model(family, seed, **(sizes or {}))
    weights = _meta_weights(model)
    for n in range(shards):
        part = {}
        for name, (weight, dim) in weights.items():
            if dim is not None:
                weight = weight.chunk(shards, dim)[n]
            part[name] = weight.to(dtype, copy=True)
        torch.save(part, folder / f'consolidated.{n:02d}.pth')

    config = model.config
    fields = dict(
        dim=config.hidden_size,
        n_heads=config.num_attention_heads,
        multiple_of=16,
        n_layers=config.num_hidden_layers,
        norm_eps=config.rms_norm_eps,
        vocab_size=-1,
    )
    if config.num_key_value_heads != config.num_attention_heads:
        fields['n_kv_heads'] = config.num_key_value_heads
    (folder / 'params.json').write_text(json.dumps({**fields, **params}))
    return folder


def _meta_weights(model: PreTrainedModel) -> dict[str, tuple[Tensor, int | None]]:
    """Return Meta's name -> weight, and the dimension that is split over files."""
    frequencies = torch.ones(model.config.head_dim // 2)
    weights = {
        'tok_embeddings.weight': (model.embed_tokens.weight, 1),
        'norm.weight': (model.norm.weight, None),
        'output.weight': (model.embed_tokens.weight, 0),
        'rope.freqs': (frequencies, None),
    }
    heads = {
        'self_attn.q_proj': model.config.num_attention_heads,
        'self_attn.k_proj': model.config.num_key_value_heads,
    }
    for i, layer in enumerate(model.layers):
        inner = f'layers.{i}.attention.inner_attention.rope.freqs'
        weights[inner] = (frequencies, None)
        for name, (meta_name, dim) in _META_LAYER.items():
            weight = layer.get_submodule(name).weight
            if name in heads:
                weight = rotary_rows_to_meta(weight, heads[name])
            weights[f'layers.{i}.{meta_name}.weight'] = (weight, dim)
    return weights


def rotary_rows_to_meta(weight: Tensor, heads: int) -> Tensor:
    """From halves ``(0, d/2), ...`` of a head to pairs ``(0, 1), ...``."""
    halves = weight.view(heads, 2, len(weight) // heads // 2, -1)
    return halves.transpose(1, 2).reshape(weight.shape)
