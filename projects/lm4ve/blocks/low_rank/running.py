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
    """Run a layer on ``W x`` without computing what the queries do not need.

    Args:
        layer (LLMLayer): The block's first layer.
        x (Tensor): ``[B, N, C]``.
        mask, queries, rotary: As in :meth:`LLMLayer.forward`.
        factors (Factors): The mapper, the norm and the projections.
        method (str): 'fold' or 'absorb'.

    Returns:
        Tensor: ``[B, Q, D]``, equal to ``layer(F.linear(x, weight), ...)``.
    """
    x = x.to(factors.root.dtype)
    tokens = to_coordinates(x, factors)
    hidden = map_tokens(x, tokens, queries, factors)
    scaled = scale_by_norm(tokens, factors)
    normed = hidden
    # Where all tokens are folded, only a gate or an MLP that shares the norm reads it.
    if queries is not None or layer.needs_normed:
        normed = layer.attention_norm(hidden)
    q = project_queries(layer, scaled, normed, queries, factors.parts['q'])
    keys = factors.parts['k']
    values = factors.parts['v']
    if method == 'absorb':
        out = absorb(layer, q, scaled, keys, values, mask)
    else:
        k = layer.heads(project_part(scaled, keys), layer.k_norm)
        v = layer.heads(project_part(scaled, values), layer.v_norm)
        q, k = layer.rotated(q, k, queries, rotary)
        out = layer.attend(q, k, v, mask)
    return layer.finish(hidden, normed, out)


def to_coordinates(x: Tensor, factors: Factors) -> Tokens:
    """Return tokens ``[B, N, C]`` in the mapper's frame."""
    own = None
    if factors.mapper.own is not None:
        own = x.detach()
    return Tokens(F.linear(x, factors.root), own)


def map_tokens(x: Tensor, tokens: Tokens, queries: Queries, factors: Factors) -> Tensor:
    """Return what the mapper makes of the queries, ``[B, Q, D]``: the layer's input.

    Args:
        x (Tensor): ``[B, N, C]``.
        tokens (Tokens): The same in the mapper's frame.
        queries: The tokens that are read.
        factors (Factors): The mapper.
    """
    dtype = factors.dtype
    read = tokens.take(queries).to(dtype)
    hidden = project(read, projection_of(factors.mapper.to(dtype)))
    if factors.mean is None:
        return hidden
    offset = take_tokens(x, queries) @ factors.mean
    return hidden + offset[..., None].to(dtype)


def scale_by_norm(tokens: Tokens, factors: Factors) -> Tokens:
    """Return tokens times the norm's scale of each, in the block's dtype."""
    if factors.eps is not None:
        width = len(factors.mapper.frame)
        mean_square = squared_norm(tokens, factors.mapper) / width
        tokens = tokens.scaled(torch.rsqrt(mean_square + factors.eps))
    return tokens.to(factors.dtype)


def project_queries(
    layer: LLMLayer, scaled: Tokens, normed: Tensor, queries: Queries, part: Part
) -> Tensor:
    """Return the queries by head, ``[B, H, Q, d]``.

    They are folded where all tokens are read, or where ``lm4ve.fuse`` has folded them.
    """
    is_fused = part.after is None
    if queries is None or is_fused:
        q = project_part(scaled.take(queries), part)
    else:
        q = layer.q_proj(normed)
    return layer.heads(q, layer.q_norm)


def project_part(scaled: Tokens, part: Part) -> Tensor:
    """Return the folded projection of tokens, ``[B, N, rows]``."""
    return project(scaled, part.fold(), part.constant)


def absorb(
    layer: LLMLayer,
    q: Tensor,
    scaled: Tokens,
    keys: Part,
    values: Part,
    mask: Tensor | None,
) -> Tensor:
    """Attention with the projections moved to the queries' side.

    Args:
        layer (LLMLayer): The layer that the projections are of.
        q (Tensor): ``[B, H, Q, d]``.
        scaled (Tokens): Tokens times the norm's scale, ``[B, N, C]``.
        keys, values (Part): Their projections.
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
    """Return the attention weights ``[B, H, Q, N]`` of scaled queries, by KV head."""
    batch, kv_heads, group, queries, head_dim = q.shape
    matrix = keys.matrix.unflatten(0, (kv_heads, -1))
    moved = torch.einsum('bkgqd,kdc->bkgqc', q, matrix)
    scores = score(moved.flatten(1, 3), keys.after, scaled).float()
    heads = kv_heads * group
    scores = scores.view(batch, heads, queries, -1)
    if keys.constant is not None and _key_constant_counts(layer, keys.constant):
        constant = keys.constant.view(kv_heads, 1, 1, head_dim)
        added = (q * constant).sum(-1, keepdim=True)  # the same for each key
        scores = scores + added.flatten(1, 2).float()
    if layer.softcap is not None:
        scores = torch.tanh(scores / layer.softcap) * layer.softcap
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return torch.softmax(scores, dim=-1).to(q.dtype)


def _key_constant_counts(layer: LLMLayer, constant: Tensor) -> bool:
    """Return whether a constant of the keys must be added to the scores.

    Without a cap it is the same for every key, and softmax drops it; but a trained bias
    must not stay unused, or DDP stops.
    """
    return layer.softcap is not None or constant.requires_grad


def _pool_values(
    weights: Tensor, scaled: Tokens, values: Part, kv_heads: int
) -> Tensor:
    """Return the heads' outputs ``[B, H, Q, d]``.

    Args:
        weights (Tensor): The attention weights, ``[B, H, Q, N]``.
        scaled (Tokens): ``[B, N, C]``.
        values (Part): The projection.
        kv_heads (int): Heads of keys and values.
    """
    batch, _, queries, _ = weights.shape
    weights = weights.flatten(1, 2)
    pooled = weights @ scaled.coordinates
    if values.after is not None:
        own = scaled.own
        if own is not None:
            own = (weights.to(own.dtype) @ own).detach()
        pooled = project(Tokens(pooled, own), projection_of(values.after))
    pooled = pooled.view(batch, kv_heads, -1, queries, pooled.shape[-1])
    matrix = values.matrix.unflatten(0, (kv_heads, -1))
    out = torch.einsum('bkgqc,kdc->bkgqd', pooled, matrix)
    if values.constant is not None:
        out = out + values.constant.view(kv_heads, 1, 1, -1)
    return out.flatten(1, 2)
