"""One spec a language model family: which parts of its layer are what.

The parts are modules of ``transformers``; a spec only names them, so that one
forward pass (``layer.py``) serves every family. A layer has two branches,
attention and MLP, and each has three optional norms: before the branch, on the
branch's output, and after the residual sum.

To add a family: print ``transformers``' layer, name its parts here, and add a
tiny config of it to ``tests/helpers/families.py``; the parity tests do the rest.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig

from lm4ve.errors import UnsupportedModelError

#: Indices of the rows of q, k and v in a fused projection.
Rows = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class LayerSpec:
    """Names the parts of a ``transformers`` decoder or encoder layer.

    Attributes:
        attention (str): The submodule that holds the projections.
        qkv (tuple[str, ...]): Query, key and value projection in it, or the
            one fused projection.
        split (callable, optional): For a fused projection: ``(config, heads,
            kv_heads, head_dim) -> (q, k, v)`` row indices.
        out (str): Output projection in ``attention``.
        qk_norm (str): '' (none), 'head' (a norm over each head's channels) or
            'all' (over all heads' channels together).
        qk_norms (tuple[str, str]): What the norms of queries and keys are called in
            ``attention``.
        attention_norms, mlp_norms (tuple[str, str, str]): Norms before the
            branch, on its output, after the residual sum; '' for none.
        mlp (tuple[str, ...]): Modules that make up the MLP, in order.
        parallel (bool): Both branches read the layer's input.
        shared_norm (bool): For parallel branches: the MLP reads the same
            normed input as attention.
        final_norm (str): The model's norm after the last layer; '' for none.
    """

    attention: str = 'self_attn'
    qkv: tuple[str, ...] = ('q_proj', 'k_proj', 'v_proj')
    split: Callable[[PretrainedConfig, int, int, int], Rows] | None = None
    out: str = 'o_proj'
    qk_norm: str = ''
    qk_norms: tuple[str, str] = ('q_norm', 'k_norm')
    attention_norms: tuple[str, str, str] = ('input_layernorm', '', '')
    mlp_norms: tuple[str, str, str] = ('post_attention_layernorm', '', '')
    mlp: tuple[str, ...] = ('mlp',)
    parallel: bool = False
    shared_norm: bool = False
    final_norm: str = 'norm'


def _rows_concatenated(config: PretrainedConfig, heads: int, kv_heads: int, head_dim: int) -> Rows:
    """All queries, then all keys, then all values."""
    q, kv = heads * head_dim, kv_heads * head_dim
    rows = torch.arange(q + 2 * kv)
    return rows[:q], rows[q : q + kv], rows[q + kv :]


def _rows_grouped(config: PretrainedConfig, heads: int, kv_heads: int, head_dim: int) -> Rows:
    """For each KV head: its queries, its key, its value."""
    group = heads // kv_heads
    rows = torch.arange((heads + 2 * kv_heads) * head_dim)
    rows = rows.view(kv_heads, group + 2, head_dim)
    return (rows[:, :group].reshape(-1), rows[:, group].reshape(-1), rows[:, group + 1].reshape(-1))


def _gpt_neox(config: PretrainedConfig) -> LayerSpec:
    return LayerSpec(
        attention='attention',
        qkv=('query_key_value',),
        split=_rows_grouped,
        out='dense',
        parallel=config.use_parallel_residual,
        final_norm='final_layer_norm',
    )


def _phi(config: PretrainedConfig) -> LayerSpec:
    return LayerSpec(
        out='dense',
        qk_norm='head' if config.qk_layernorm else '',
        qk_norms=('q_layernorm', 'k_layernorm'),
        parallel=True,
        shared_norm=True,
        mlp_norms=('', '', ''),
        final_norm='final_layernorm',
    )


def _opt(config: PretrainedConfig) -> LayerSpec:
    first, second = 'self_attn_layer_norm', 'final_layer_norm'
    before = config.do_layer_norm_before  # False only for opt-350m
    removed = getattr(config, '_remove_final_layer_norm', False)
    return LayerSpec(
        out='out_proj',
        attention_norms=(first, '', '') if before else ('', '', first),
        mlp_norms=(second, '', '') if before else ('', '', second),
        mlp=('fc1', 'activation_fn', 'fc2'),
        final_norm='decoder.final_layer_norm' if before and not removed else '',
    )


def _falcon(config: PretrainedConfig) -> LayerSpec:
    if config.alibi:
        raise UnsupportedModelError(
            'falcon with alibi=True adds a position bias to the attention '
            'scores, which has no meaning for image tokens. Choose a falcon '
            'with rotary embeddings (falcon-7b, falcon-40b, falcon2-11b).'
        )
    sequential = LayerSpec(
        attention='self_attention',
        qkv=('query_key_value',),
        # The three layouts of falcon-rw, -7b and -40b differ only in how many
        # queries share a key.
        split=_rows_grouped,
        out='dense',
        final_norm='ln_f',
    )
    if not config.parallel_attn:
        return sequential
    if config.new_decoder_architecture and config.num_ln_in_parallel_attn != 1:
        attention_norms, mlp_norms = ('ln_attn', '', ''), ('ln_mlp', '', '')
        return replace(
            sequential, parallel=True, attention_norms=attention_norms, mlp_norms=mlp_norms
        )
    return replace(sequential, parallel=True, shared_norm=True, mlp_norms=('', '', ''))


_LLAMA = LayerSpec()
_BERT = LayerSpec(
    attention='attention',
    qkv=('self.query', 'self.key', 'self.value'),
    out='output.dense',
    attention_norms=('', '', 'attention.output.LayerNorm'),
    mlp_norms=('', '', 'output.LayerNorm'),
    mlp=('intermediate.dense', 'intermediate.intermediate_act_fn', 'output.dense'),
    final_norm='',
)
_GEMMA2 = LayerSpec(
    attention_norms=('input_layernorm', 'post_attention_layernorm', ''),
    mlp_norms=('pre_feedforward_layernorm', 'post_feedforward_layernorm', ''),
)

#: ``model_type`` of a config -> its spec, or a function of the config.
FAMILIES: dict[str, LayerSpec | Callable[[PretrainedConfig], LayerSpec]] = {
    'llama': _LLAMA,
    'mistral': _LLAMA,
    'qwen2': _LLAMA,
    'qwen3': LayerSpec(qk_norm='head'),
    'gemma': _LLAMA,
    'gemma2': _GEMMA2,
    'gemma3_text': replace(_GEMMA2, qk_norm='head'),
    'phi': _phi,
    'phi3': LayerSpec(qkv=('qkv_proj',), split=_rows_concatenated),
    'gpt_neox': _gpt_neox,
    'gpt2': LayerSpec(
        attention='attn',
        qkv=('c_attn',),
        split=_rows_concatenated,
        out='c_proj',
        attention_norms=('ln_1', '', ''),
        mlp_norms=('ln_2', '', ''),
        final_norm='ln_f',
    ),
    'opt': _opt,
    'olmo2': LayerSpec(
        qk_norm='all',
        attention_norms=('', 'post_attention_layernorm', ''),
        mlp_norms=('', 'post_feedforward_layernorm', ''),
    ),
    'granite': _LLAMA,
    'smollm3': _LLAMA,
    'starcoder2': _LLAMA,
    'falcon': _falcon,
    'bert': _BERT,
    'roberta': _BERT,
}

_REMOTE_CODE = (
    'it is the remote-code layout of early {} models; use a checkpoint with model_type "{}"'
)
_REFUSED = {
    **dict.fromkeys(('bloom', 'mpt'), 'it adds an alibi position bias to the attention scores'),
    **dict.fromkeys(('mixformer-sequential', 'phi-msft'), _REMOTE_CODE.format('Phi', 'phi')),
    **dict.fromkeys(('RefinedWeb', 'RefinedWebModel'), _REMOTE_CODE.format('Falcon', 'falcon')),
}
# Names of the number of layers. transformers makes lists of that length.
_DEPTHS = ('num_hidden_layers', 'n_layer', 'n_layers', 'num_layers')
_DEEPEST = 10_000
# Fields by which configs name a mixture of experts.
_EXPERTS = ('num_experts', 'num_local_experts', 'n_routed_experts', 'moe_num_experts')


def layer_spec(config: PretrainedConfig) -> LayerSpec:
    """Return the spec of a (text) config's layers.

    Raises:
        UnsupportedModelError: There is none, with the reason where the family
            is refused on purpose.
    """
    spec = FAMILIES[config.model_type]
    return spec(config) if callable(spec) else spec


def check_supported(config: dict[str, Any]) -> None:
    """Refuse a raw ``config.json`` that no block can be built of.

    Args:
        config (dict): The parsed file.

    Raises:
        UnsupportedModelError: Unknown family, mixture of experts, alibi,
            quantized weights, or a layout that needs remote code.
    """
    kind = config.get('model_type', '')
    text = config.get('text_config') or {}
    if not isinstance(kind, str) or not isinstance(text, dict):
        raise UnsupportedModelError(
            'model_type of config.json is no text, or text_config no dict. Fix: copy it again.'
        )
    for field in _DEPTHS:
        if any(isinstance(n := d.get(field), int) and n > _DEEPEST for d in (config, text)):
            raise UnsupportedModelError(
                f"model_type '{kind}' has over {_DEEPEST:,} layers ({field}), as no model does. "
                'Fix: copy config.json again.'
            )
    supported = ', '.join(sorted({*FAMILIES, 'gemma3'}))
    if config.get('quantization_config') or text.get('quantization_config'):
        raise UnsupportedModelError(
            f"model_type '{kind}' with quantization_config: quantized weights have no gradient "
            'with respect to their input in plain PyTorch. Fix: point block.checkpoint at the '
            "unquantized release and set block.dtype='bfloat16' to save memory."
        )
    if kind in _REFUSED:
        raise UnsupportedModelError(
            f"model_type '{kind}' is refused: {_REFUSED[kind]}. Supported: {supported}."
        )
    if any(d.get(k) for d in (config, text) for k in _EXPERTS):
        raise UnsupportedModelError(
            f"model_type '{kind}' is a mixture of experts: its layers route "
            'each token to other weights, and there is no single block to '
            f'insert. Fix: choose a dense model. Supported: {supported}.'
        )
    if text.get('model_type', kind) not in FAMILIES:
        raise UnsupportedModelError(
            f"model_type '{kind}' has no layer spec. Supported: {supported}. "
            'Fix: choose one of these for block.checkpoint, or add a spec to '
            'lm4ve/blocks/families.py (docs/extend/add_a_family.md).'
        )
