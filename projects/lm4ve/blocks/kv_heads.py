"""Which key and value head a query head reads, where several share one.

Of H query heads and K heads of keys and values, LLaMA's head j reads head j // (H / K):
those that share one are neighbors ('grouped'). MedVisionLlama's code (arXiv 2410.02458,
``src/llm/llama.py``) repeats the K heads as a whole, so that head j reads head j % K
('tiled'): another computation with the same weights.

A layer here always groups. 'tiled' is had by bringing the query heads into the order in
which those that share a head are neighbors: the rows of the query projection, and the
columns of the output projection. So whatever reads a layer's weights is right by
construction.
"""

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from lm4ve.blocks.families.spec import LayerSpec
from lm4ve.blocks.frozen import linear_of
from lm4ve.blocks.projections import Projections
from lm4ve.errors import require

GROUPED = 'grouped'
TILED = 'tiled'


def shares_kv_heads(projections: Projections, config: PretrainedConfig) -> bool:
    """Return whether several query heads read one head of keys and values, but not all.

    Otherwise 'grouped' and 'tiled' are the same.
    """
    kv_heads = _count_kv_heads(projections, config)
    heads: int = config.num_attention_heads
    return 1 < kv_heads < heads


def _count_kv_heads(projections: Projections, config: PretrainedConfig) -> int:
    """Return how many heads of keys and values an attention has."""
    head_dim = projections.q.out_features // config.num_attention_heads
    kv_heads: int = projections.k.out_features // head_dim
    return kv_heads


def tile(
    projections: Projections,
    attention: nn.Module,
    spec: LayerSpec,
    config: PretrainedConfig,
) -> Projections:
    """Bring query heads into the order in which 'tiled' reads keys and values by groups.

    Args:
        projections (Projections): The attention's, in the language model's order.
        attention (nn.Module): The library's attention that they are of.
        spec (LayerSpec): The family's.
        config (PretrainedConfig): The (text) config it was built from.

    Raises:
        UserError: More than the two projections depends on the order of heads.
    """
    has_sinks = getattr(attention, 'sinks', None) is not None
    has_wide_norms = spec.qk_norm == 'all'
    has_gates = projections.gate is not None
    require(
        not (has_sinks or has_wide_norms or has_gates),
        f"block.kv_heads='{TILED}' is not for {config.model_type}, whose gates, norms or sinks "
        f"have an order of heads too. Fix: block.kv_heads='{GROUPED}'.",
    )
    order = tiled_order(projections, config)
    q = projections.q
    bias = None
    if q.bias is not None:
        bias = _rows(q.bias, order)
    columns = _rows(projections.out.weight.t(), order).t().contiguous()
    return projections._replace(
        q=linear_of(_rows(q.weight, order), bias),
        out=linear_of(columns, projections.out.bias),
    )


def tiled_order(projections: Projections, config: PretrainedConfig) -> Tensor:
    """Return the language model's numbers of the query heads after :func:`tile`, ``[H]``."""
    kv_heads = _count_kv_heads(projections, config)
    # Head g K + k reads k; for each k its heads follow one another.
    numbers = torch.arange(config.num_attention_heads)
    return numbers.view(-1, kv_heads).t().flatten()


def _rows(tensor: Tensor, order: Tensor) -> Tensor:
    """Return the rows of a tensor ``[H * d, ...]``, head by head in another order."""
    by_head = tensor.detach().unflatten(0, (len(order), -1))
    reordered: Tensor = by_head[order].flatten(0, 1)
    return reordered
