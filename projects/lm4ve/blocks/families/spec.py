"""The spec of a family's layers, and how fused projections split.

The parts of a layer are modules of ``transformers``; a spec only names them, so that
one forward pass (``layer.py``) serves every family. A layer has two branches, attention
and MLP, and each has three optional norms: before the branch, on the branch's output,
and after the residual sum.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig

#: The norms of a layer: before a branch, on its output, and after the residual sum.
NORMS = (
    'attention_norm',
    'attention_out_norm',
    'attention_post_norm',
    'mlp_norm',
    'mlp_out_norm',
    'mlp_post_norm',
)
#: Forms of rotary tables by which channel i turns with i + r / 2.
HALVES = ('halves', 'half width', 'backwards')
#: Fields of a config that few families read. Of others a config may have them, without
#: an effect.
RARE_FIELDS = ('clip_qkv', 'is_causal', 'layer_rope_theta')
#: Indices of the rows of q, k and v in a fused projection.
Rows = tuple[Tensor, Tensor, Tensor]


def _llama_norms() -> dict[str, str]:
    """Return the names of LLaMA's norms, which many families share."""
    return {
        'attention_norm': 'input_layernorm',
        'mlp_norm': 'post_attention_layernorm',
    }


def _uses_rotary(attention: Any) -> bool:
    """Return whether an attention has rotary embedding; most have no attribute for it."""
    return bool(getattr(attention, 'use_rope', True))


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
        gated (bool): The query projection also has a gate for each head's output, after
            the head's query.
        qk_norm (str): '' (none), 'head' (a norm over each head's channels, tokens
            before heads), 'split' (the same, heads before tokens) or 'all' (over all
            heads' channels together).
        qk_norms (tuple[str, str]): What the norms of queries and keys are called in
            ``attention``.
        norm_after_rotary (bool): These norms come after the rotary embedding.
        v_norm (str): A norm of each head's values.
        norms (dict[str, str]): Maps each of :data:`NORMS` that the layer has to its
            name there.
        mlp (tuple[str, ...]): Modules that make up the MLP, in order.
        parallel (bool): Both branches read the layer's input; without an ``mlp_norm``
            the MLP reads the normed input of attention.
        rotary (str): The form of ``transformers``' rotary tables, a key of
            :data:`lm4ve.blocks.rotary.FORMS`. Of those in :data:`HALVES` the channels
            of a head's two halves turn together, of the others neighbors.
        uses_rotary (callable): ``(attention) -> bool``: whether a layer's attention has
            rotary embedding where the model has.
        scale (float, optional): Factor of the scores, where the attention has no
            attribute ``scaling`` and the factor is not ``head_dim ** -0.5``.
        softcap (bool): The scores are capped (gemma3 has the config's field and ignores
            it).
        reads (tuple[str, ...]): The fields of :data:`RARE_FIELDS` that the family
            reads.
        reach (callable, optional): ``(config) -> int``: with this many tokens or fewer
            the family's scores depend on the positions only by rotary embedding.
        experts (bool): The MLP may be a mixture of experts, which ``transformers``' own
            module routes.
        final_norm (str): The model's norm after the last layer; '' for none.
        layers (str): The model's list of layers, where it is not the first list.
        place (callable, optional): ``(config, index) -> str``: the last part of the
            prefix of a layer's tensors, where it is not the index.
        refuse (callable, optional): ``(config, index) -> str``: the reason why a layer
            cannot be had, '' if it can.
    """

    attention: str = 'self_attn'
    qkv: tuple[str, ...] = ('q_proj', 'k_proj', 'v_proj')
    split: Callable[[PretrainedConfig, int, int, int], Rows] | None = None
    out: str = 'o_proj'
    gated: bool = False
    qk_norm: str = ''
    qk_norms: tuple[str, str] = ('q_norm', 'k_norm')
    norm_after_rotary: bool = False
    v_norm: str = ''
    norms: dict[str, str] = field(default_factory=_llama_norms)
    mlp: tuple[str, ...] = ('mlp',)
    parallel: bool = False
    rotary: str = 'halves'
    uses_rotary: Callable[[Any], bool] = _uses_rotary
    scale: float | None = None
    softcap: bool = False
    reads: tuple[str, ...] = ()
    reach: Callable[[PretrainedConfig], int] | None = None
    experts: bool = False
    final_norm: str = 'norm'
    layers: str = ''
    place: Callable[[PretrainedConfig, int], str] | None = None
    refuse: Callable[[PretrainedConfig, int], str] | None = None


#: A spec, or a function of the config where the layout depends on it.
Family = LayerSpec | Callable[[PretrainedConfig], LayerSpec]


def rows_concatenated(
    config: PretrainedConfig, heads: int, kv_heads: int, head_dim: int
) -> Rows:
    """Return the rows of a projection with all queries first, then all keys, then all values.

    ``config`` is not read: all functions of rows have these arguments.
    """
    q = heads * head_dim
    kv = kv_heads * head_dim
    rows = torch.arange(q + 2 * kv)
    return rows[:q], rows[q : q + kv], rows[q + kv :]


def rows_grouped(
    config: PretrainedConfig, heads: int, kv_heads: int, head_dim: int
) -> Rows:
    """Return the rows of a projection by KV head, each with its queries, its key, its value.

    ``config`` is not read: all functions of rows have these arguments.
    """
    group = heads // kv_heads
    rows = torch.arange((heads + 2 * kv_heads) * head_dim)
    rows = rows.view(kv_heads, group + 2, head_dim)
    q = rows[:, :group].reshape(-1)
    k = rows[:, group].reshape(-1)
    v = rows[:, group + 1].reshape(-1)
    return q, k, v


def rows_of_four_shards(
    config: PretrainedConfig, heads: int, kv_heads: int, head_dim: int
) -> Rows:
    """Return the rows of CodeGen's projection, which it was trained on in four shards.

    Each shard has its queries, then its values, then its keys. ``config`` and the number
    of KV heads are not read: CodeGen has one for each head.
    """
    rows = torch.arange(3 * heads * head_dim).view(4, 3, -1)
    q, v, k = rows.unbind(dim=1)
    return q.reshape(-1), k.reshape(-1), v.reshape(-1)
