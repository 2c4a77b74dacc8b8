"""The first layer's attention from an input of low rank, exactly and for less.

Behind the mapper ``W`` (``[D, C]``, C << D) the block's input ``h = W x`` has rank
C, and so has its norm: for every token it is a scale times a linear map,

    norm(h_n) = A xs_n + b,   A = diag(g) W,   xs_n = s_n x_n,

where s is the norm's scale, g and b its gain and bias. (Layer norm: W with its
columns centered. Families that norm after the branch: s = 1, g = 1, b = 0.) Keys
and values are frozen projections of that. Two ways to use it:

fold
    ``k = (Wk A) xs + Wk b``. A token costs C instead of D; the folded matrix costs
    ``D C`` a row in every forward pass, since the weights may have changed.
absorb
    ``q . k = (A' Wk' q) . xs + q . Wk b``, and values are pooled as ``xs``
    before ``A`` and ``Wv`` act. No key or value is ever computed. For few queries; not
    with rotary embedding, norms of keys or values, clipped projections or sinks.

The scale needs ``|W x|^2 = x' (W'W) x`` only. That sum is in fp32 with autocast
off: in 16 bits it overflows or turns negative.

Both hold only if mapper, norm and projections compute what their classes define; else
:meth:`lm4ve.blocks.LLMBlock.choose_low_rank` has the modules called instead.
"""

from functools import reduce
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lm4ve.blocks.frozen import unwrap
from lm4ve.blocks.layer import LLMLayer, Queries, Rotary, take_tokens
from lm4ve.blocks.norms import affine_of

#: The batch for which compiled code decides.
_COMPILED_BATCH = 32
#: Matrices whose product takes ``xs`` to a projection of the normed tokens, and what is added.
Part = tuple[tuple[Tensor, ...], Tensor | None]


def count_macs(layer: LLMLayer, x: Tensor, queries: Queries) -> dict[str, int]:
    """Count multiply-accumulates, up to the heads' outputs, by method.

    The mapper, the norm's scale, projections and attention; the output
    projection and the MLP are the same for all. Where gradients are recorded, the backward pass
    is counted too: a product is done twice in all where one factor is frozen
    (forward, gradient of the other factor), three times where none is.

    Args:
        layer (LLMLayer): The block's first layer.
        x (Tensor): Tokens before the mapper, ``[B, N, C]``.
        queries: The tokens that are read.
    """
    batch, n, c = x.shape
    if torch.compiler.is_compiling():  # which has a symbol for the batch, and binds code to it
        batch = _COMPILED_BATCH
    if isinstance(queries, Tensor):
        read = queries.shape[1]
    else:
        read = n if queries is None else len(range(n)[queries])
    (q_dim, d), kv_dim = unwrap(layer.q_proj).weight.shape, len(unwrap(layer.k_proj).weight)
    heads = q_dim // layer.head_dim
    attention = 2 * batch * read * n * q_dim
    mapped, query = batch * read * c * d, batch * read * d * q_dim
    scale = 0 if layer.norm_form is None else batch * n * c * c + c * c * d
    # Where every token is a query, the query's projection is folded too.
    fold_query = read == n
    rows = 2 * kv_dim + fold_query * q_dim
    # Method -> (products with a frozen factor, products without).
    counts = dict(
        off=(batch * n * d * 2 * kv_dim + query, batch * n * c * d + attention),
        fold=(
            rows * d * c + (not fold_query) * query,
            mapped + batch * n * c * rows + scale + attention,
        ),
        absorb=(
            query + 2 * batch * read * q_dim * d,
            mapped + scale + 2 * batch * read * heads * c * (d + n),
        ),
    )
    twice, thrice = (2, 3) if torch.is_grad_enabled() else (1, 1)
    return {name: twice * frozen + thrice * free for name, (frozen, free) in counts.items()}


class Factors(NamedTuple):
    """A mapper W, the norm after it and the projections of that as ``norm(W x) = A xs + b``.

    Attributes:
        weight (Tensor): W in the block's dtype, ``[D, C]``.
        gram (Tensor | None): ``W'W / D``, ``[C, C]`` in fp32; None: there is no norm.
        eps (float): The norm's epsilon.
        parts (dict[str, Part]): For 'q', 'k' and 'v'.
    """

    weight: Tensor
    gram: Tensor | None
    eps: float
    parts: dict[str, Part]

    def fold(self, name: str) -> tuple[Tensor, Tensor | None]:
        """Return weight ``[rows, C]`` and bias that take ``xs`` to a projection."""
        matrices, constant = self.parts[name]
        return reduce(torch.matmul, matrices), constant


def factorize(layer: LLMLayer, weight: Tensor, dtype: torch.dtype) -> Factors:
    """Write a layer's projections of ``norm(W x)`` as factors; gradients flow to all weights.

    Args:
        layer (LLMLayer): The block's first layer.
        weight (Tensor): The mapper W, ``[D, C]``.
        dtype (torch.dtype): The block's.
    """
    mapper = a = weight.to(dtype)
    gram = b = None
    eps = 0.0
    if layer.norm_form is not None:
        _, centered, eps = layer.norm_form
        gain, b = affine_of(layer.attention_norm, eps, mapper.t())
        weight = weight.float()
        if centered:
            weight = weight - weight.mean(dim=0, keepdim=True)
        gram = weight.t() @ weight / len(weight)
        a = (weight if gain is None else gain.float()[:, None] * weight).to(dtype)
    parts: dict[str, Part] = {}
    for name in 'qkv':
        linear = unwrap(getattr(layer, f'{name}_proj'))
        matrix, bias = linear.weight, linear.bias
        if b is not None:
            constant = matrix @ b.to(dtype)
            bias = constant if bias is None else constant + bias
        parts[name] = (matrix, a), bias
    return Factors(mapper, gram, eps, parts)


def absorb(
    layer: LLMLayer, q: Tensor, xs: Tensor, keys: Part, values: Part, mask: Tensor | None
) -> Tensor:
    """Attention with the projections moved to the queries' side.

    Args:
        layer (LLMLayer): The layer that the projections are of.
        q (Tensor): ``[B, H, Q, d]``.
        xs (Tensor): Scaled tokens, ``[B, N, C]``.
        keys, values (Part): Their projections.
        mask (Tensor, optional): Bool, broadcastable to ``[B, H, Q, N]``.

    Returns:
        Tensor: ``[B, H, Q, d]``.
    """
    batch, heads, queries, head_dim = q.shape
    (to_keys, *more_keys), key_constant = keys
    (to_values, *more_values), value_constant = values
    kv_heads = len(to_keys) // head_dim
    # Before the products: unscaled scores could leave float16's range.
    q = q.unflatten(1, (kv_heads, -1)) * layer.scale  # [B, KV, H / KV, Q, d]
    moved = torch.einsum('bkgqd,kdc->bkgqc', q, to_keys.unflatten(0, (kv_heads, -1)))
    for factor in more_keys:
        moved = moved @ factor
    scores = (moved.flatten(1, 3) @ xs.transpose(1, 2)).float()
    scores = scores.view(batch, heads, queries, -1)
    if key_constant is not None and (layer.softcap is not None or key_constant.requires_grad):
        # Without a cap it is the same for every key, and softmax drops it; a
        # trained bias must not stay unused, or DDP stops.
        constant = (q * key_constant.view(kv_heads, 1, 1, head_dim)).sum(-1, keepdim=True)
        scores = scores + constant.flatten(1, 2).float()
    if layer.softcap is not None:
        scores = torch.tanh(scores / layer.softcap) * layer.softcap
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    weights = torch.softmax(scores, dim=-1).to(q.dtype)
    pooled = weights.flatten(1, 2) @ xs
    for factor in reversed(more_values):
        pooled = pooled @ factor.t()
    pooled = pooled.view(batch, kv_heads, -1, queries, pooled.shape[-1])
    out = torch.einsum('bkgqc,kdc->bkgqd', pooled, to_values.unflatten(0, (kv_heads, -1)))
    if value_constant is not None:
        out = out + value_constant.view(kv_heads, 1, 1, head_dim)
    return out.flatten(1, 2)


def run_layer(
    layer: LLMLayer,
    x: Tensor,
    mask: Tensor | None,
    queries: Queries,
    rotary: Rotary,
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
    if factors.gram is None:
        xs = x.to(factors.weight.dtype)
    else:
        xs = x.float()
        square = ((xs @ factors.gram) * xs).sum(dim=-1, keepdim=True).clamp_min(0.0)
        xs = (xs * torch.rsqrt(square + factors.eps)).to(factors.weight.dtype)
    hidden = F.linear(take_tokens(x, queries).to(xs.dtype), factors.weight)
    # Where all tokens are folded, only a gate or an MLP that shares the norm reads it.
    reads_norm = queries is not None or layer.needs_normed
    normed = layer.attention_norm(hidden) if reads_norm else hidden
    if queries is None or len(factors.parts['q'][0]) == 1:  # which lm4ve.fuse has folded
        q = F.linear(take_tokens(xs, queries), *factors.fold('q'))
    else:
        q = layer.q_proj(normed)
    q = layer.heads(q, layer.q_norm)
    if method == 'absorb':
        out = absorb(layer, q, xs, factors.parts['k'], factors.parts['v'], mask)
        return layer.finish(hidden, normed, out)
    k = layer.heads(F.linear(xs, *factors.fold('k')), layer.k_norm)
    v = layer.heads(F.linear(xs, *factors.fold('v')), layer.v_norm)
    q, k = layer.rotated(q, k, queries, rotary)
    return layer.finish(hidden, normed, layer.attend(q, k, v, mask))
