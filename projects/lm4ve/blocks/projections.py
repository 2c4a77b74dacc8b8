"""The projections of an attention as separate linear layers, for every family.

Some families fuse q, k and v into one projection, and some store their weights
transposed (``Conv1D``).
"""

from operator import attrgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig
from transformers.pytorch_utils import Conv1D

from lm4ve.blocks.families.spec import LayerSpec, Rows
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
    named = [_as_linear(attrgetter(name)(attention)) for name in spec.qkv]
    if spec.split is None:
        q, k, v = named
    else:
        rows = _rows_of_fused(attention, spec, config)
        q, k, v = [select_rows(named[0], chosen) for chosen in rows]
    gate = None
    if spec.gated:
        of_queries, of_gates = _rows_of_gated(q.out_features, config)
        gate = select_rows(q, of_gates)
        q = select_rows(q, of_queries)
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


def fused_parts(
    layer: nn.Module, spec: LayerSpec, config: PretrainedConfig
) -> dict[str, list[Any]]:
    """Return where the projections lie that share a weight.

    Args:
        layer (nn.Module): A layer of ``transformers``.
        spec (LayerSpec): How its projections are fused.
        config (PretrainedConfig): The (text) config it was built from.

    Returns:
        dict[str, list]: The name of a weight in the layer -> an index of each
        projection in it. Weights of one projection are left out.
    """
    if spec.split is None and not spec.gated:
        return {}
    attention = attrgetter(spec.attention)(layer)
    fused = attrgetter(spec.qkv[0])(attention)
    rows: tuple[Tensor, ...]
    if spec.split is not None:
        rows = _rows_of_fused(attention, spec, config)
    else:
        rows = _rows_of_gated(fused.out_features, config)
    indices: list[Any] = list(rows)
    if isinstance(fused, Conv1D):  # its outputs are columns
        indices = [(slice(None), chosen) for chosen in rows]
    return {f'{spec.attention}.{spec.qkv[0]}.weight': indices}


def _rows_of_fused(
    attention: nn.Module, spec: LayerSpec, config: PretrainedConfig
) -> Rows:
    """Return the rows of queries, keys and values in the one projection of a family.

    The arguments are :func:`split_projections`'; the spec has a ``split``.
    """
    heads = config.num_attention_heads
    fused = _as_linear(attrgetter(spec.qkv[0])(attention))
    head_dim = getattr(attention, 'head_dim', None)
    if head_dim is None:
        head_dim = config.hidden_size // heads
    kv_heads = (fused.out_features // head_dim - heads) // 2
    assert spec.split is not None
    return spec.split(config, heads, kv_heads, head_dim)


def _rows_of_gated(rows: int, config: PretrainedConfig) -> tuple[Tensor, Tensor]:
    """Return the rows of queries and of gates in a projection to both.

    Within the rows of each head there is its query, then its gate.

    Args:
        rows (int): How many the projection has.
        config (PretrainedConfig): The (text) config of the attention.
    """
    by_head = torch.arange(rows).view(config.num_attention_heads, 2, -1)
    return by_head[:, 0].flatten(), by_head[:, 1].flatten()


def select_rows(linear: nn.Linear, rows: Tensor) -> nn.Linear:
    """Return a linear layer with some of another one's rows."""
    bias = None
    if linear.bias is not None:
        bias = linear.bias[rows]
    return linear_of(linear.weight[rows], bias)
