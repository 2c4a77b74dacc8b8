"""A layer's forward pass by 'fold' or 'absorb'."""

import torch
import torch.nn.functional as F
from torch import Tensor

from lm4ve.blocks.layer import LLMLayer
from lm4ve.blocks.low_rank.factors import Factors, Projection
from lm4ve.blocks.rotary import Tables
from lm4ve.blocks.tokens import Queries, take_tokens


def run_layer(
    layer: LLMLayer,
    x: Tensor,
    mask: Tensor | None,
    queries: Queries,
    rotary: Tables | None,
    factors: Factors,
    method: str,
) -> Tensor:
    """Run the first layer of a block on ``mapper(x)``, from the tokens before the mapper.

    Mapper and norm are computed for the queries alone; keys and values come from the
    factors.

    Args:
        layer (LLMLayer): The block's first layer.
        x (Tensor): Tokens before the mapper, ``[B, N, C]``, at least in fp32.
        mask, queries, rotary: See :meth:`LLMLayer.forward`.
        factors (Factors): The mapper, the norm and the projections.
        method (str): 'fold' or 'absorb'.

    Returns:
        Tensor: ``[B, Q, D]``, equal to ``layer(mapper(x), mask, queries, rotary)``.
    """
    dtype = factors.mapper.dtype
    hidden = F.linear(take_tokens(x, queries).to(dtype), factors.mapper)
    scaled = scale_by_norm(x, factors).to(dtype)
    normed = hidden
    # If every token is a query, queries are projected by the factors too.
    if queries is not None:
        normed = layer.attention_norm(hidden)
    q = project_queries(layer, scaled, normed, queries, factors.projections['q'])
    keys = factors.projections['k']
    values = factors.projections['v']
    if method == 'absorb':
        out = absorb(layer, q, scaled, keys, values, mask)
    else:
        k = layer.split_heads(_project(scaled, keys), layer.k_norm)
        v = layer.split_heads(_project(scaled, values), layer.v_norm)
        q, k = layer.rotated(q, k, queries, rotary)
        out = layer.attend(q, k, v, mask)
    return layer.finish(hidden, out)


def scale_by_norm(x: Tensor, factors: Factors) -> Tensor:
    """Multiply each token by the scale ``1 / sqrt(|W x|^2 / D + eps)`` of the norm.

    Without a norm before attention the scale is 1.
    """
    if factors.gram is None:
        return x
    square = ((x @ factors.gram.to(x.dtype)) * x).sum(dim=-1, keepdim=True)
    # Rounding could make it negative, where W cancels the whole token.
    mean_square = square.clamp_min(0) / len(factors.mapper)
    return x * torch.rsqrt(mean_square + factors.eps)


def project_queries(
    layer: LLMLayer,
    scaled: Tensor,
    normed: Tensor,
    queries: Queries,
    projection: Projection,
) -> Tensor:
    """Compute the queries of attention by head.

    Args:
        layer (LLMLayer): The layer.
        scaled (Tensor): Tokens times the norm's scale, ``[B, N, C]``.
        normed (Tensor): The layer's normed input at the queries, ``[B, Q, D]``. It is
            projected if only some tokens are queries; the product of the weights, which
            'fold' computes, would not pay.
        queries: Which tokens are queries.
        projection (Projection): Its factors.

    Returns:
        Tensor: ``[B, H, Q, d]``.
    """
    is_fused = projection.after is None
    if queries is None or is_fused:
        q = _project(take_tokens(scaled, queries), projection)
    else:
        q = layer.q_proj(normed)
    return layer.split_heads(q, layer.q_norm)


def _project(scaled: Tensor, projection: Projection) -> Tensor:
    """Project tokens ``[B, N, C]`` by a folded matrix: ``[B, N, rows]``."""
    return F.linear(scaled, projection.fold(), projection.constant)


def absorb(
    layer: LLMLayer,
    q: Tensor,
    scaled: Tensor,
    keys: Projection,
    values: Projection,
    mask: Tensor | None,
) -> Tensor:
    """Compute attention without keys and values.

    The key projection is applied to the queries, which are then compared with the
    tokens; and the tokens are averaged by the attention weights before the value
    projection is applied to the average.

    Args:
        layer (LLMLayer): The block's first layer.
        q (Tensor): ``[B, H, Q, d]``.
        scaled (Tensor): Tokens times the norm's scale, ``[B, N, C]``.
        keys, values (Projection): The projections to keys and to values.
        mask (Tensor, optional): Bool, broadcastable to ``[B, H, Q, N]``.

    Returns:
        Tensor: ``[B, H, Q, d]``.
    """
    kv_heads = len(keys.matrix) // q.shape[-1]
    # Before the products: unscaled scores could leave float16's range.
    q = q.unflatten(1, (kv_heads, -1)) * layer.scale  # [B, KV, H / KV, Q, d]
    weights = _weights(q, scaled, keys, mask)
    return _pool_values(weights, scaled, values, kv_heads)


def _weights(
    q: Tensor, scaled: Tensor, keys: Projection, mask: Tensor | None
) -> Tensor:
    """Compute the attention weights after softmax.

    Args:
        q (Tensor): Queries times the layer's factor of scores, ``[B, KV, H / KV, Q,
            d]``.
        scaled (Tensor): Tokens times the norm's scale, ``[B, N, C]``.
        keys (Projection): The projection to keys.
        mask (Tensor, optional): Bool, broadcastable to ``[B, H, Q, N]``.

    Returns:
        Tensor: ``[B, H, Q, N]``, in the dtype of ``q``.
    """
    _, kv_heads, group, queries, head_dim = q.shape
    matrix = keys.matrix.unflatten(0, (kv_heads, -1))
    projected = torch.einsum('bkgqd,kdc->bkgqc', q, matrix).flatten(1, 3)
    if keys.after is not None:
        projected = _times(projected, keys.after)
    scores = (projected @ scaled.mT).float()
    # All sizes are named: an empty batch would leave one open.
    scores = scores.unflatten(1, (kv_heads * group, queries))
    if keys.constant is not None and keys.constant.requires_grad:
        # It adds the same number to all scores of a query, which softmax ignores. A bias
        # that trains is added all the same, since DDP requires that every parameter gets
        # a gradient.
        constant = keys.constant.view(kv_heads, 1, 1, head_dim)
        added = (q * constant).sum(-1, keepdim=True)  # the same for each key
        scores = scores + added.flatten(1, 2).float()
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return torch.softmax(scores, dim=-1).to(q.dtype)


def _pool_values(
    weights: Tensor, scaled: Tensor, values: Projection, kv_heads: int
) -> Tensor:
    """Average tokens by the attention weights, then apply the value projection.

    Args:
        weights (Tensor): The attention weights, ``[B, H, Q, N]``.
        scaled (Tensor): Tokens times the norm's scale, ``[B, N, C]``.
        values (Projection): The projection to values.
        kv_heads (int): The number of heads of keys and values.

    Returns:
        Tensor: The heads' outputs, ``[B, H, Q, d]``.
    """
    _, heads, queries, _ = weights.shape
    pooled = weights.flatten(1, 2) @ scaled
    if values.after is not None:
        pooled = F.linear(pooled, values.after)
    pooled = pooled.unflatten(1, (kv_heads, heads // kv_heads, queries))
    matrix = values.matrix.unflatten(0, (kv_heads, -1))
    out = torch.einsum('bkgqc,kdc->bkgqd', pooled, matrix)
    if values.constant is not None:
        out = out + values.constant.view(kv_heads, 1, 1, -1)
    return out.flatten(1, 2)


def _times(x: Tensor, matrix: Tensor) -> Tensor:
    """Multiply ``[..., m] @ [m, n]`` as one product of two matrices.

    For an ``x`` that is not contiguous, torch would copy the matrix for each entry of
    the batch.
    """
    out: Tensor = (x.flatten(0, -2) @ matrix).unflatten(0, x.shape[:-1])
    return out
