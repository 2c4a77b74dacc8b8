"""The projections of an attention as separate linear layers, for every family.

Some families fuse q, k and v into one projection, and some store their weights
transposed (``Conv1D``).
"""

from collections.abc import Iterable
from operator import attrgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig
from transformers.pytorch_utils import Conv1D

from lm4ve.blocks.families.spec import LayerSpec
from lm4ve.blocks.frozen import linear_of


class Projections(NamedTuple):
    """The projections of one layer's attention.

    Attributes:
        q, k, v (nn.Linear): Of queries, keys and values. v is k where values are keys
            (gemma4).
        gate (nn.Linear | None): Of each head's output; None where there is none.
        out (nn.Linear): Of the heads' outputs together.
    """

    q: nn.Linear
    k: nn.Linear
    v: nn.Linear
    gate: nn.Linear | None
    out: nn.Linear


def split_projections(
    attention: nn.Module, spec: LayerSpec, config: PretrainedConfig
) -> Projections:
    """Return the projections of an attention of ``transformers``.

    Args:
        attention (nn.Module): It has the weights.
        spec (LayerSpec): What its projections are called, and how they are fused.
        config (PretrainedConfig): The (text) config it was built from.
    """
    heads = config.num_attention_heads
    named = [_as_linear(attrgetter(name)(attention)) for name in spec.qkv]
    if spec.split is None:
        q, k, v = named
    else:
        fused = named[0]
        head_dim = getattr(attention, 'head_dim', None)
        if head_dim is None:
            head_dim = config.hidden_size // heads
        kv_heads = (fused.out_features // head_dim - heads) // 2
        rows = spec.split(config, heads, kv_heads, head_dim)
        q, k, v = _split(fused, rows)
    gate = None
    if spec.gated:
        # Within the rows of each head: its query, then its gate.
        by_head = torch.arange(q.out_features).view(heads, 2, -1)
        q, gate = _split(q, (by_head[:, 0].flatten(), by_head[:, 1].flatten()))
    if v is None:
        v = k
    out = _as_linear(attrgetter(spec.out)(attention))
    return Projections(q, k, v, gate, out)


def _as_linear(projection: Any) -> Any:
    """Return a projection as a linear layer; None stays None."""
    if not isinstance(projection, Conv1D):
        return projection
    weight: Any = projection.weight
    return linear_of(weight.detach().t().contiguous(), projection.bias)


def _split(linear: nn.Linear, rows: Iterable[Tensor]) -> list[nn.Linear]:
    """Return a linear layer for each of some groups of a layer's rows."""
    parts = []
    for chosen in rows:
        bias = None
        if linear.bias is not None:
            bias = linear.bias[chosen]
        parts.append(linear_of(linear.weight[chosen], bias))
    return parts
