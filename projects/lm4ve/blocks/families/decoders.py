"""Decoders with one attention and one dense MLP a layer, which are most language models."""

from dataclasses import replace
from typing import Any

from transformers import PretrainedConfig

from lm4ve.blocks.families.spec import (
    Family,
    LayerSpec,
    rows_concatenated,
    rows_grouped,
    rows_of_four_shards,
)
from lm4ve.errors import UnsupportedModelError

LLAMA = LayerSpec()
#: LLaMA with a norm over the channels of each head's queries and keys.
QWEN3 = LayerSpec(qk_norm='head')
#: LLaMA with a norm before each branch and one on its output.
GEMMA2 = LayerSpec(
    norms={
        'attention_norm': 'input_layernorm',
        'attention_out_norm': 'post_attention_layernorm',
        'mlp_norm': 'pre_feedforward_layernorm',
        'mlp_out_norm': 'post_feedforward_layernorm',
    },
)
_APERTUS = replace(
    QWEN3,
    norms={
        'attention_norm': 'attention_layernorm',
        'mlp_norm': 'feedforward_layernorm',
    },
)
# No norm before a branch, one on its output.
_OLMO2 = LayerSpec(
    qk_norm='all',
    norms={
        'attention_out_norm': 'post_attention_layernorm',
        'mlp_out_norm': 'post_feedforward_layernorm',
    },
)
_GLM = LayerSpec(rotary='pairs')
_GLM4 = replace(
    _GLM,
    norms={
        'attention_norm': 'input_layernorm',
        'attention_out_norm': 'post_self_attn_layernorm',
        'mlp_norm': 'post_attention_layernorm',
        'mlp_out_norm': 'post_mlp_layernorm',
    },
)
# Branches side by side that read the same norm.
_SHARED_NORM = LayerSpec(
    parallel=True,
    norms={'attention_norm': 'input_layernorm'},
)
_COHERE = replace(_SHARED_NORM, rotary='interleaved')
_GPTJ = replace(
    _SHARED_NORM,
    attention='attn',
    out='out_proj',
    norms={'attention_norm': 'ln_1'},
    rotary='sine first',
    final_norm='ln_f',
)
# What norms of queries and keys are called in some families; they count where the
# config has them built.
_LAYERNORMS = ('q_layernorm', 'k_layernorm')
_PHI = replace(
    _SHARED_NORM,
    out='dense',
    qk_norm='head',
    qk_norms=_LAYERNORMS,
    final_norm='final_layernorm',
)
# Queries, keys and values of a head lie together in one projection.
_FUSED = LayerSpec(
    qkv=('query_key_value',),
    split=rows_grouped,
    out='dense',
)
_PERSIMMON = replace(
    _FUSED,
    qk_norm='head',
    qk_norms=_LAYERNORMS,
    final_norm='final_layernorm',
)
_GPT2 = LayerSpec(
    attention='attn',
    qkv=('c_attn',),
    split=rows_concatenated,
    out='c_proj',
    norms={
        'attention_norm': 'ln_1',
        'mlp_norm': 'ln_2',
    },
    final_norm='ln_f',
)
_GPT_NEO = replace(
    _GPT2,
    attention='attn.attention',
    qkv=('q_proj', 'k_proj', 'v_proj'),
    split=None,
    out='out_proj',
    scale=1.0,
)
_BIOGPT = LayerSpec(
    out='out_proj',
    norms={
        'attention_norm': 'self_attn_layer_norm',
        'mlp_norm': 'final_layer_norm',
    },
    mlp=('fc1', 'activation_fn', 'fc2'),
    final_norm='layer_norm',
)


def _gpt_neox(config: PretrainedConfig) -> LayerSpec:
    """Return the spec of GPT-NeoX, whose branches are parallel if the config says so."""
    fused = replace(_FUSED, attention='attention', final_norm='final_layer_norm')
    return replace(fused, parallel=config.use_parallel_residual)


def _stablelm(config: PretrainedConfig) -> LayerSpec:
    """Return the spec of StableLM: parallel branches with one norm, or LLaMA's layer."""
    layout = LLAMA
    if config.use_parallel_residual:
        layout = _SHARED_NORM
    return replace(layout, qk_norm='split', qk_norms=_LAYERNORMS)


def _gpt_bigcode(config: PretrainedConfig) -> LayerSpec:
    """Return the spec of GPTBigCode.

    With one key for all queries its rows are those of GPT-2, else head after head.
    """
    if config.multi_query:
        return _GPT2
    return replace(_GPT2, split=rows_grouped)


def _opt(config: PretrainedConfig) -> LayerSpec:
    """Return the spec of OPT, with norms before the branches or after the residual sums.

    opt-350m alone has the latter, and no final norm.
    """
    if config.do_layer_norm_before:
        norms = {
            'attention_norm': 'self_attn_layer_norm',
            'mlp_norm': 'final_layer_norm',
        }
        final_norm = 'decoder.final_layer_norm'
    else:
        norms = {
            'attention_post_norm': 'self_attn_layer_norm',
            'mlp_post_norm': 'final_layer_norm',
        }
        final_norm = ''
    if getattr(config, '_remove_final_layer_norm', False):
        final_norm = ''
    return replace(_BIOGPT, norms=norms, final_norm=final_norm)


def _falcon(config: PretrainedConfig) -> LayerSpec:
    """Return the spec of Falcon: sequential branches, or parallel with one or two norms.

    Raises:
        UnsupportedModelError: The config has alibi.
    """
    if config.alibi:
        raise UnsupportedModelError(
            'falcon with alibi=True adds a position bias to the attention scores. '
            'Choose another.'
        )
    # The layouts of falcon-rw, -7b and -40b differ only in how many queries share a
    # key.
    sequential = replace(_FUSED, attention='self_attention', final_norm='ln_f')
    if not config.parallel_attn:
        return sequential
    norms = {'attention_norm': 'input_layernorm'}
    if config.new_decoder_architecture and config.num_ln_in_parallel_attn != 1:
        norms = {
            'attention_norm': 'ln_attn',
            'mlp_norm': 'ln_mlp',
        }
    return replace(sequential, parallel=True, norms=norms)


def _where_it_slides(attention: Any) -> bool:
    """Return whether a layer has rotary embedding: in cohere2 only those with a window."""
    return attention.sliding_window is not None


def _exaone4_rotary(attention: Any) -> bool:
    """Return whether a layer has rotary embedding: in models with a window only those with it."""
    return attention.sliding_window is None or attention.is_sliding


def _granite_swa_rotary(attention: Any) -> bool:
    """Return whether a layer has rotary embedding: its base in the config is 0 if not."""
    return bool(attention.config.layer_rope_theta[attention.layer_idx])


def _ministral3_reach(config: PretrainedConfig) -> int:
    """Return the length up to which scores are not scaled by position (``LayerSpec.reach``)."""
    return int(config.rope_parameters['original_max_position_embeddings'])


DECODERS: dict[str, Family] = {
    # Biases, LayerNorm, gated or plain MLPs and scales of the residual come with the
    # modules.
    'llama': LLAMA,
    'mistral': LLAMA,
    'ministral': LLAMA,
    'qwen2': LLAMA,
    'qwen2_vl_text': LLAMA,
    'qwen2_5_vl_text': LLAMA,
    'gemma': LLAMA,
    'granite': LLAMA,
    'smollm3': LLAMA,
    'starcoder2': LLAMA,
    'arcee': LLAMA,
    'seed_oss': LLAMA,
    'internlm3': LLAMA,
    'nemotron': LLAMA,
    'cwm': LLAMA,
    'jais2': LLAMA,
    'iquestcoder': LLAMA,
    'eurobert': LLAMA,
    'PanguEmbedded': LLAMA,
    'olmo': replace(LLAMA, reads=('clip_qkv',)),
    'granite_swa': replace(
        LLAMA, uses_rotary=_granite_swa_rotary, reads=('layer_rope_theta',)
    ),
    'ministral3': replace(LLAMA, reach=_ministral3_reach),
    'phi3': LayerSpec(qkv=('qkv_proj',), split=rows_concatenated),
    # Channels are rotated in neighboring pairs.
    'glm': _GLM,
    'ernie4_5': _GLM,
    'helium': _GLM,
    'glm4': _GLM4,
    # Norms of queries and keys.
    'qwen3': QWEN3,
    'qwen3_vl_text': QWEN3,
    'apertus': _APERTUS,
    'apertus1p5_text': _APERTUS,
    'hunyuan_v1_dense': replace(
        QWEN3, qk_norms=('query_layernorm', 'key_layernorm'), norm_after_rotary=True
    ),
    'nanochat': replace(QWEN3, norm_after_rotary=True, rotary='backwards'),
    # Norms on the branches' outputs.
    'olmo2': _OLMO2,
    'olmo3': _OLMO2,
    'exaone4': replace(_OLMO2, qk_norm='head', uses_rotary=_exaone4_rotary),
    'gemma2': replace(GEMMA2, softcap=True),
    'gemma3_text': replace(GEMMA2, qk_norm='head'),
    # Branches side by side.
    'cohere': replace(_COHERE, qk_norm='head'),
    'cohere2': replace(_COHERE, uses_rotary=_where_it_slides),
    'phi': _PHI,
    'stablelm': _stablelm,
    'falcon': _falcon,
    'gpt_neox': _gpt_neox,
    'gptj': _GPTJ,
    'codegen': replace(_GPTJ, qkv=('qkv_proj',), split=rows_of_four_shards),
    # The line of GPT-2, without rotary embedding but for persimmon.
    'gpt2': _GPT2,
    'gpt_bigcode': _gpt_bigcode,
    'gpt_neo': _GPT_NEO,
    'persimmon': _PERSIMMON,
    'opt': _opt,
    'biogpt': _BIOGPT,
    'xglm': _BIOGPT,
}
