"""Mixtures of experts, and models of which only some layers have attention.

A mixture of experts as a frozen layer is a function like any other: ``transformers``'
own module routes the tokens. All its experts are read, so that a block is as large as
they are.
"""

from dataclasses import replace

from transformers import PretrainedConfig

from lm4ve.blocks.families.decoders import GEMMA2, LLAMA, QWEN3
from lm4ve.blocks.families.spec import Family, LayerSpec

#: More tokens than any model reads.
_ANY_LENGTH = 10**9


def _without_attention(config: PretrainedConfig, index: int) -> str:
    """Return the reason why a layer without softmax attention cannot be used.

    '' if it can (``LayerSpec.refuse``), because ``layer_types`` calls it full attention.
    The reason names the nearest layer that can.
    """
    types = config.layer_types
    kind = types[index]
    if kind == 'full_attention':
        return ''
    usable = [i for i, other in enumerate(types) if other == 'full_attention']
    advice = 'no layer has'
    if usable:
        nearest = min(usable, key=lambda i: abs(i - index))
        advice = f'the nearest layer that has is {nearest}'
    return f"it is of the kind '{kind}' and has no softmax attention; {advice}"


def _gemma4_refuse(config: PretrainedConfig, index: int) -> str:
    """Return the reason why a layer of Gemma 4 cannot be used; '' if it can."""
    if config.hidden_size_per_layer_input:
        return (
            "it takes an embedding of each token's id (hidden_size_per_layer_input), which image "
            'tokens do not have; choose a Gemma 4 without it'
        )
    if config.enable_moe_block:
        return 'its experts read the residual stream beside a dense MLP, which no form here has'
    if config.kv_sharing_modes[index] == 'reuse':
        return 'it has no keys and values of its own (num_kv_shared_layers)'
    return ''


def _llama4_reach(config: PretrainedConfig) -> int:
    """Return the length up to which scores are not scaled by position (``LayerSpec.reach``)."""
    if not config.attn_temperature_tuning:
        return _ANY_LENGTH
    return int(config.floor_scale) - 1


_LLAMA4 = LayerSpec(
    qk_norm='head',
    qk_norms=('qk_norm', 'qk_norm'),
    norm_after_rotary=True,
    mlp=('feed_forward',),
    rotary='complex',
    reach=_llama4_reach,
    experts=True,
)
_MIXTRAL = replace(LLAMA, experts=True)
_QWEN3_MOE = replace(QWEN3, experts=True)
_QWEN3_NEXT = replace(QWEN3, gated=True, experts=True, refuse=_without_attention)
_LFM2 = LayerSpec(
    out='out_proj',
    qk_norm='head',
    qk_norms=('q_layernorm', 'k_layernorm'),
    norms={
        'attention_norm': 'operator_norm',
        'mlp_norm': 'ffn_norm',
    },
    mlp=('feed_forward',),
    final_norm='embedding_norm',
    refuse=_without_attention,
)

HYBRIDS: dict[str, Family] = {
    'mixtral': _MIXTRAL,
    'qwen2_moe': _MIXTRAL,
    'solar_open': _MIXTRAL,
    'qwen3_moe': _QWEN3_MOE,
    'mellum': _QWEN3_MOE,
    'glm4_moe': _QWEN3_MOE,
    'olmoe': replace(_MIXTRAL, qk_norm='all', reads=('clip_qkv',)),
    'minimax_m2': replace(_MIXTRAL, qk_norm='all'),
    'gpt_oss': replace(LLAMA, rotary='half width', experts=True),
    'llama4_text': _LLAMA4,
    # Full attention in some layers only.
    'qwen3_next': _QWEN3_NEXT,
    'qwen3_5_text': _QWEN3_NEXT,
    'lfm2': _LFM2,
    'gemma4_text': replace(
        GEMMA2,
        qk_norm='head',
        v_norm='v_norm',
        reads=('is_causal',),
        refuse=_gemma4_refuse,
    ),
}
