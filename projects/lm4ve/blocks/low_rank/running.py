"""A layer's forward pass by 'fold' or 'absorb'."""

import torch
import torch.nn.functional as F
from torch import Tensor

from lm4ve.blocks.layer import LLMLayer
from lm4ve.blocks.low_rank.factors import Factors, Part
from lm4ve.blocks.low_rank.products import (
    Tokens,
    project,
    projection_of,
    score,
    squared_norm,
)
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

    Mapper and norm run as modules for the queries alone; keys and values come from the
    factors.

    Args:
        layer (LLMLayer): The block's first layer.
        x (Tensor): Tokens before the mapper, ``[B, N, C]``.
        mask, queries, rotary: See :meth:`LLMLayer.forward`.
        factors (Factors): The mapper, the norm and the projections.
        method (str): 'fold' or 'absorb'.

    Returns:
        Tensor: ``[B, Q, D]``, equal to ``layer(mapper(x), mask, queries, rotary)``.
    """
    x = x.to(factors.root.dtype)
    tokens = to_coordinates(x, factors)
    hidden = map_queries(x, tokens, queries, factors)
    scaled = scale_by_norm(tokens, factors)
    normed = hidden
    # If every token is a query, queries are projected by the factors too.
    if queries is not None:
        normed = layer.attention_norm(hidden)
    q = project_queries(layer, scaled, normed, queries, factors.parts['q'])
    keys = factors.parts['k']
    values = factors.parts['v']
    if method == 'absorb':
        out = absorb(layer, q, scaled, keys, values, mask)
    else:
        k = layer.split_heads(project_part(scaled, keys), layer.k_norm)
        v = layer.split_heads(project_part(scaled, values), layer.v_norm)
        q, k = layer.rotated(q, k, queries, rotary)
        out = layer.attend(q, k, v, mask)
    return layer.finish(hidden, out)


def to_coordinates(x: Tensor, factors: Factors) -> Tokens:
    """Compute the coordinates of tokens ``[B, N, C]`` in the mapper's frame.

    The tokens themselves are kept if a matrix trains.
    """
    original = None
    if factors.mapper.original is not None:
        original = x.detach()
    return Tokens(F.linear(x, factors.root), original)


def map_queries(
    x: Tensor, tokens: Tokens, queries: Queries, factors: Factors
) -> Tensor:
    """Run the mapper for the queries alone: ``mapper(x)`` at the queries.

    Args:
        x (Tensor): All tokens, ``[B, N, C]``.
        tokens (Tokens): The same with their coordinates.
        queries: Which of them are computed.
        factors (Factors): The mapper.

    Returns:
        Tensor: ``[B, Q, D]``, in the block's dtype: the layer's input at the queries.
    """
    dtype = factors.dtype
    query_tokens = tokens.take(queries).to(dtype)
    hidden = project(query_tokens, projection_of(factors.mapper.to(dtype)))
    if factors.mean is None:
        return hidden
    # The columns of the factored mapper are centered, so their mean is added back.
    offset = take_tokens(x, queries) @ factors.mean
    return hidden + offset[..., None].to(dtype)


def scale_by_norm(tokens: Tokens, factors: Factors) -> Tokens:
    """Multiply each token by the scale ``1 / sqrt(|W x|^2 / D + eps)`` of the norm.

    Without a norm before attention the scale is 1. The result is in the block's dtype.
    """
    if factors.eps is not None:
        width = len(factors.mapper.frame)
        mean_square = squared_norm(tokens, factors.mapper) / width
        tokens = tokens.scaled(torch.rsqrt(mean_square + factors.eps))
    return tokens.to(factors.dtype)


def project_queries(
    layer: LLMLayer, scaled: Tokens, normed: Tensor, queries: Queries, part: Part
) -> Tensor:
    """Compute the queries of attention by head.

    Args:
        layer (LLMLayer): The layer.
        scaled (Tokens): Tokens times the norm's scale, ``[B, N, C]``.
        normed (Tensor): The layer's normed input at the queries, ``[B, Q, D]``. It is
            projected if only some tokens are queries; the product of the weights, which
            'fold' computes, would not pay.
        queries: Which tokens are queries.
        part (Part): The projection's factors.

    Returns:
        Tensor: ``[B, H, Q, d]``.
    """
    is_fused = part.after is None
    if queries is None or is_fused:
        q = project_part(scaled.take(queries), part)
    else:
        q = layer.q_proj(normed)
    return layer.split_heads(q, layer.q_norm)


def project_part(scaled: Tokens, part: Part) -> Tensor:
    """Project tokens ``[B, N, C]`` by a folded matrix: ``[B, N, rows]``."""
    return project(scaled, part.fold(), part.constant)


def absorb(
    layer: LLMLayer,
    q: Tensor,
    scaled: Tokens,
    keys: Part,
    values: Part,
    mask: Tensor | None,
) -> Tensor:
    """Compute attention without keys and values.

    The key projection is applied to the queries, which are then compared with the
    tokens; and the tokens are averaged by the attention weights before the value
    projection is applied to the average.

    Args:
        layer (LLMLayer): The block's first layer.
        q (Tensor): ``[B, H, Q, d]``.
        scaled (Tokens): Tokens times the norm's scale, ``[B, N, C]``.
        keys, values (Part): The projections to keys and to values.
        mask (Tensor, optional): Bool, broadcastable to ``[B, H, Q, N]``.

    Returns:
        Tensor: ``[B, H, Q, d]``.
    """
    kv_heads = len(keys.matrix) // q.shape[-1]
    # Before the products: unscaled scores could leave float16's range.
    q = q.unflatten(1, (kv_heads, -1)) * layer.scale  # [B, KV, H / KV, Q, d]
    weights = _weights(layer, q, scaled, keys, mask)
    return _pool_values(weights, scaled, values, kv_heads)


def _weights(
    layer: LLMLayer, q: Tensor, scaled: Tokens, keys: Part, mask: Tensor | None
) -> Tensor:
    """Compute the attention weights after softmax.

    Args:
        layer (LLMLayer): The block's first layer.
        q (Tensor): Queries times the layer's factor of scores, ``[B, KV, H / KV, Q,
            d]``.
        scaled (Tokens): Tokens times the norm's scale, ``[B, N, C]``.
        keys (Part): The projection to keys.
        mask (Tensor, optional): Bool, broadcastable to ``[B, H, Q, N]``.

    Returns:
        Tensor: ``[B, H, Q, N]``, in the dtype of ``q``.
    """
    _, kv_heads, group, queries, head_dim = q.shape
    matrix = keys.matrix.unflatten(0, (kv_heads, -1))
    projected = torch.einsum('bkgqd,kdc->bkgqc', q, matrix)
    scores = score(projected.flatten(1, 3), keys.after, scaled).float()
    heads = kv_heads * group
    # All sizes are named: an empty batch would leave one open.
    scores = scores.unflatten(1, (heads, queries))
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
    weights: Tensor, scaled: Tokens, values: Part, kv_heads: int
) -> Tensor:
    """Average tokens by the attention weights, then apply the value projection.

    Args:
        weights (Tensor): The attention weights, ``[B, H, Q, N]``.
        scaled (Tokens): Tokens times the norm's scale, ``[B, N, C]``.
        values (Part): The projection to values.
        kv_heads (int): The number of heads of keys and values.

    Returns:
        Tensor: The heads' outputs, ``[B, H, Q, d]``.
    """
    _, heads, queries, _ = weights.shape
    weights = weights.flatten(1, 2)
    pooled = weights @ scaled.coordinates
    if values.after is not None:
        original = scaled.original
        if original is not None:
            original = (weights.to(original.dtype) @ original).detach()
        pooled = project(Tokens(pooled, original), projection_of(values.after))
    pooled = pooled.unflatten(1, (kv_heads, heads // kv_heads, queries))
    matrix = values.matrix.unflatten(0, (kv_heads, -1))
    out = torch.einsum('bkgqc,kdc->bkgqd', pooled, matrix)
    if values.constant is not None:
        out = out + values.constant.view(kv_heads, 1, 1, -1)
    return out.flatten(1, 2)
