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

Both hold only if mapper, norm and projections compute what their weights say; with
:func:`is_exact` false the modules are called instead.
"""

from functools import reduce
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lm4ve.blocks.frozen import is_plain, unwrap
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
    read = count_queries(queries, n)
    (q_dim, d), kv_dim = _weights(layer.q_proj)[0].shape, len(_weights(layer.k_proj)[0])
    heads = q_dim // layer.head_dim
    attention = 2 * batch * read * n * q_dim
    mapped, query = batch * read * c * d, batch * read * d * q_dim
    scale = 0 if layer.attention_norm is None else batch * n * c * c + c * c * d
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


def count_queries(queries: Queries, tokens: int) -> int:
    """Return how many of N tokens are read."""
    if isinstance(queries, Tensor):
        return queries.shape[1]
    return tokens if queries is None else len(range(tokens)[queries])


def cheapest(costs: dict[str, int], may_absorb: bool) -> str:
    """Return the method with the fewest multiply-accumulates."""
    best = 'off'
    for method, macs in costs.items():  # `min` with a key takes no symbols of a compiler
        if macs < costs[best] and (method != 'absorb' or may_absorb):
            best = method
    return best


def is_exact(layer: nn.Module, mapper: nn.Module) -> bool:
    """Whether a mapper and the layer after it are a linear map, a norm and linear maps.

    Only then do their weights say all of what they compute.
    """
    if not (is_plain(mapper) and mapper.bias is None and is_plain(layer, LLMLayer)):
        return False
    parts: Any = layer
    norm, form = parts.attention_norm, parts.norm_form
    return all(is_plain(p) for p in (parts.q_proj, parts.k_proj, parts.v_proj)) and (
        norm is form is None or (None not in (norm, form) and is_plain(norm, form.kind))
    )


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

    def scale(self, x: Tensor) -> Tensor:
        """Return ``xs``, the tokens ``[B, N, C]`` times the scale of the norm that follows."""
        if self.gram is None:
            return x.to(self.weight.dtype)
        x = x.float()
        square = ((x @ self.gram) * x).sum(dim=-1, keepdim=True).clamp_min(0.0)
        return (x * torch.rsqrt(square + self.eps)).to(self.weight.dtype)

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
    norm, form = layer.attention_norm, layer.norm_form
    if norm is not None and form is not None:
        gain, b = affine_of(norm, form, mapper.t())
        weight = weight.float()
        if form.centered:
            weight = weight - weight.mean(dim=0, keepdim=True)
        gram, eps = weight.t() @ weight / len(weight), form.eps
        a = (weight if gain is None else gain.float()[:, None] * weight).to(dtype)
    parts: dict[str, Part] = {}
    for name in 'qkv':
        matrix, bias = _weights(getattr(layer, f'{name}_proj'))
        if b is not None:
            constant = matrix @ b.to(dtype)
            bias = constant if bias is None else constant + bias
        parts[name] = (matrix, a), bias
    return Factors(mapper, gram, eps, parts)


def _weights(projection: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Return weight and bias of a linear layer, frozen or not."""
    module: Any = unwrap(projection)
    return module.weight, module.bias


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

    def by_kv_head(x: Tensor) -> Tensor:
        """``[B, H, Q, *] -> [KV, B * H / KV * Q, *]``."""
        x = x.reshape(batch, kv_heads, -1, x.shape[-1])
        return x.transpose(0, 1).reshape(kv_heads, -1, x.shape[-1])

    def by_sample(x: Tensor) -> Tensor:
        """The way back."""
        x = x.view(kv_heads, batch, -1, x.shape[-1]).transpose(0, 1)
        return x.reshape(batch, heads, queries, x.shape[-1])

    # Before the products: unscaled scores could leave float16's range.
    q = q * layer.scale
    moved = by_kv_head(q) @ to_keys.view(kv_heads, head_dim, -1)
    for factor in more_keys:
        moved = moved @ factor
    scores = by_sample(moved).flatten(1, 2) @ xs.transpose(1, 2)
    scores = scores.view(batch, heads, queries, -1).float()
    if key_constant is not None and (layer.softcap is not None or key_constant.requires_grad):
        # Without a cap it is the same for every key, and softmax drops it; a
        # trained bias must not stay unused, or DDP stops.
        constant = key_constant.view(kv_heads, 1, head_dim)
        constant = constant.repeat_interleave(heads // kv_heads, dim=0)
        scores = scores + (q * constant).sum(-1, keepdim=True).float()
    if layer.softcap is not None:
        scores = torch.tanh(scores / layer.softcap) * layer.softcap
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    weights = torch.softmax(scores, dim=-1).to(q.dtype)
    pooled = by_kv_head((weights.flatten(1, 2) @ xs).view(batch, heads, queries, -1))
    for factor in reversed(more_values):
        pooled = pooled @ factor.t()
    out = pooled @ to_values.view(kv_heads, head_dim, -1).transpose(1, 2)
    if value_constant is not None:
        out = out + value_constant.view(kv_heads, 1, head_dim)
    return by_sample(out)


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
    xs = factors.scale(x)
    hidden = F.linear(take_tokens(x, queries).to(xs.dtype), factors.weight)
    normed = hidden
    # Where all tokens are folded, only a gate or an MLP that shares the norm reads it.
    if layer.attention_norm is not None and (queries is not None or layer.needs_normed):
        normed = layer.attention_norm(hidden)
    if queries is None or layer.q_proj is None:  # which lm4ve.fuse has folded
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
