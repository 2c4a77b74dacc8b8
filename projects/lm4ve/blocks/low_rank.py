"""The first layer's attention from an input of low rank, exactly and for less.

Behind the mapper ``W`` (``[D, C]``, C << D) the block's input ``h = W x`` has rank
C, and so has its norm: for every token it is a scale times a linear map,

    norm(h_n) = A xs_n + b,   A = diag(g) W,   xs_n = s_n x_n,

where s is the norm's scale, g and b its gain and bias. (Layer norm: W with its
columns centered. Families that norm after the branch: s = 1, g = 1, b = 0.) Keys
and values are frozen projections of that. Two ways to use it:

fold
    ``k = (Wk A) xs + Wk b``. A token costs C instead of D; the folded matrix costs
    ``D C`` a row once a step, and nothing in evaluation, where it is cached.
absorb
    ``q . k = (A' Wk' q) . xs + q . Wk b``, and values are pooled as ``xs``
    before ``A`` and ``Wv`` act. No key or value is ever computed. For few queries; not
    with rotary embedding, norms of keys or values, clipped projections or sinks.

The scale needs ``|W x|^2 = x' (W'W) x`` only. That sum is in fp32 with autocast
off: in 16 bits it overflows or turns negative.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lm4ve.blocks.fold_memory import Remember
from lm4ve.blocks.frozen import unwrap
from lm4ve.blocks.layer import LLMLayer, Queries, Rotary, take_tokens
from lm4ve.blocks.norms import NormForm, affine_of

#: The batch for which a compiled training step decides.
_COMPILED_BATCH = 32


@dataclass(frozen=True)
class Sizes:
    """What the cost of the first layer's attention depends on.

    Attributes:
        batch, tokens, queries (int): B, N, Q.
        channels, width (int): C, D.
        heads, kv_heads, head_dim (int): H, KV, d.
        normed (bool): There is a norm before attention.
        training (bool): Gradients are recorded. If not, folded matrices are
            at hand.
    """

    batch: int
    tokens: int
    queries: int
    channels: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    normed: bool = True
    training: bool = True


def count_macs(s: Sizes, batch: int | None = None) -> dict[str, int]:
    """Count multiply-accumulates, up to the heads' outputs, by method.

    The mapper, the norm's scale, projections and attention; the output
    projection and the MLP are the same for all. In training the backward pass
    is counted too: a product is done twice in all where one factor is frozen
    (forward, gradient of the other factor), three times where none is. ``batch`` stands for
    the sizes' own.
    """
    batch = s.batch if batch is None else batch
    c, d = s.channels, s.width
    q_dim, kv_dim = s.heads * s.head_dim, s.kv_heads * s.head_dim
    tokens, queries = batch * s.tokens, batch * s.queries
    attention = 2 * queries * s.tokens * q_dim
    query = queries * d * q_dim
    scale = tokens * c * c * s.normed
    gram = c * c * d * s.normed * s.training
    # Where every token is a query, the query's projection is folded too.
    fold_query = s.queries == s.tokens
    folded_rows = 2 * kv_dim + fold_query * q_dim
    # Method -> (products with a frozen factor, products without).
    counts = dict(
        off=(tokens * d * 2 * kv_dim + query, tokens * c * d + attention),
        fold=(
            s.training * folded_rows * d * c + (not fold_query) * query,
            queries * c * d + tokens * c * folded_rows + scale + gram + attention,
        ),
        absorb=(
            query + 2 * queries * q_dim * d,
            queries * c * d + scale + gram + 2 * queries * s.heads * c * (d + s.tokens),
        ),
    )
    twice, thrice = (2, 3) if s.training else (1, 1)
    return {name: twice * frozen + thrice * free for name, (frozen, free) in counts.items()}


def cheapest(sizes: Sizes, may_absorb: bool) -> str:
    """Return the method with the fewest multiply-accumulates."""
    if sizes.channels >= sizes.width:
        return 'off'
    costs = count_macs(sizes, _known_batch(sizes))
    if not may_absorb:
        del costs['absorb']
    best = 'off'
    for method, macs in costs.items():  # `min` with a key takes no symbols of a compiler
        if macs < costs[best]:
            best = method
    return best


def _known_batch(sizes: Sizes) -> int | None:
    """Return a batch to decide by where its own size must not matter, else None.

    Without gradients all costs grow with the batch alike, so that any will do. A compiler has
    a symbol for it, and each comparison with one would be a further graph.
    """
    if not sizes.training:
        return 1
    return _COMPILED_BATCH if torch.compiler.is_compiling() else None


def sizes_of(layer: LLMLayer, x: Tensor, queries: Queries) -> Sizes:
    """Return the sizes of a batch ``x [B, N, C]`` before a layer."""
    batch, tokens, channels = x.shape
    if isinstance(queries, Tensor):
        num_queries = queries.shape[1]
    else:
        num_queries = tokens if queries is None else len(range(tokens)[queries])
    q, k = (_linear(p)[0] for p in (layer.q_proj, layer.k_proj))
    return Sizes(
        batch,
        tokens,
        num_queries,
        channels,
        q.shape[1],
        len(q) // layer.head_dim,
        len(k) // layer.head_dim,
        layer.head_dim,
        layer.attention_norm is not None,
        torch.is_grad_enabled(),
    )


def explain(sizes: Sizes) -> str:
    """Say in words what a choice was based on."""
    costs = ', '.join(f'{name} {macs / 1e9:.2f}' for name, macs in count_macs(sizes).items())
    return (
        f'{sizes.batch} x {sizes.tokens} tokens of which {sizes.queries} are read, '
        f'C={sizes.channels}, D={sizes.width} (GMAC up to the heads: {costs})'
    )


def may_absorb(layer: LLMLayer, rotary: bool) -> bool:
    """Whether nothing acts on a layer's keys and values between projection and scores."""
    return layer.keys_are_linear and not (rotary and layer.uses_rotary)


class LowRankInput:
    """``norm(W x) = A xs + b`` of one batch, for one layer's attention norm.

    Args:
        x (Tensor): Tokens before the mapper, ``[B, N, C]``.
        weight (Tensor): The mapper W, ``[D, C]``.
        norm (nn.Module, optional): The norm before attention.
        form (NormForm, optional): What that norm does.
        dtype (torch.dtype): The block's.
        remember (callable): See ``fold_memory.py``.

    Attributes:
        xs (Tensor): Scaled tokens, ``[B, N, C]``, in ``dtype``.
        a (Tensor): ``[D, C]``, in ``dtype``.
        b (Tensor | None): ``[D]``, in ``dtype``.
    """

    def __init__(
        self,
        x: Tensor,
        weight: Tensor,
        norm: nn.Module | None,
        form: NormForm | None,
        dtype: torch.dtype,
        remember: Remember,
    ) -> None:
        self.remember = remember
        self.b: Tensor | None = None
        if norm is None or form is None:
            self.xs, self.a = x.to(dtype), weight.to(dtype)
            return
        gain, bias = affine_of(norm, form, weight.t().to(dtype))
        weight = weight.float()
        if form.centered:
            weight = weight - weight.mean(dim=0, keepdim=True)
        gram = remember('gram', lambda: weight.t() @ weight / len(weight))
        x = x.float()
        square = ((x @ gram) * x).sum(dim=-1, keepdim=True).clamp_min(0.0)
        self.xs = (x * torch.rsqrt(square + form.eps)).to(dtype)
        self.a = remember(
            'a', lambda: (weight if gain is None else gain.float()[:, None] * weight).to(dtype)
        )
        if bias is not None:
            self.b = bias.to(dtype)

    def fold(self, name: str, projection: nn.Module) -> Tensor:
        """Return a projection of the normed tokens, ``[B, N, rows]``."""
        weight, bias = _linear(projection)
        folded = self.remember(name, lambda: weight @ self.a)
        return F.linear(self.xs, folded, self.constant(name, weight, bias))

    def constant(self, name: str, weight: Tensor, bias: Tensor | None) -> Tensor | None:
        """What a projection makes of the norm's bias, plus its own."""
        b = self.b
        if b is None:
            return bias
        made = self.remember(f'{name} constant', lambda: weight @ b)
        return made if bias is None else made + bias


def _linear(projection: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Return weight and bias of a linear layer, frozen or not."""
    module: Any = unwrap(projection)
    return module.weight, module.bias


def absorb(q: Tensor, low: LowRankInput, layer: LLMLayer, mask: Tensor | None) -> Tensor:
    """Attention with the projections moved to the queries' side.

    Args:
        q (Tensor): ``[B, H, Q, d]``.
        low (LowRankInput): The keys' and values' tokens.
        layer (LLMLayer): The layer that the projections are of.
        mask (Tensor, optional): Bool, broadcastable to ``[B, H, Q, N]``.

    Returns:
        Tensor: ``[B, H, Q, d]``.
    """
    batch, heads, queries, head_dim = q.shape
    wk, bk = _linear(layer.k_proj)
    wv, bv = _linear(layer.v_proj)
    kv_heads = len(wk) // head_dim
    tokens = low.xs.shape[1]

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
    moved = by_kv_head(q) @ wk.view(kv_heads, head_dim, -1) @ low.a
    scores = by_sample(moved).flatten(1, 2) @ low.xs.transpose(1, 2)
    scores = scores.view(batch, heads, queries, tokens).float()
    constant = low.constant('k', wk, bk)
    if constant is not None and (layer.softcap is not None or constant.requires_grad):
        # Without a cap it is the same for every key, and softmax drops it; a
        # trained bias must not stay unused, or DDP stops.
        constant = constant.view(kv_heads, 1, head_dim)
        constant = constant.repeat_interleave(heads // kv_heads, dim=0)
        scores = scores + (q * constant).sum(-1, keepdim=True).float()
    if layer.softcap is not None:
        scores = torch.tanh(scores / layer.softcap) * layer.softcap
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    weights = torch.softmax(scores, dim=-1).to(q.dtype)
    pooled = (weights.flatten(1, 2) @ low.xs).view(batch, heads, queries, -1)
    normed = by_kv_head(pooled) @ low.a.t()
    if low.b is not None:
        normed = normed + low.b
    out = normed @ wv.view(kv_heads, head_dim, -1).transpose(1, 2)
    if bv is not None:
        out = out + bv.view(kv_heads, 1, head_dim)
    return by_sample(out)


def run_layer(
    layer: LLMLayer,
    x: Tensor,
    mask: Tensor | None,
    queries: Queries,
    rotary: Rotary,
    *,
    weight: Tensor,
    method: str,
    dtype: torch.dtype,
    remember: Remember,
) -> Tensor:
    """Run a layer on ``W x`` without computing what the queries do not need.

    Args:
        layer (LLMLayer): The block's first layer.
        x (Tensor): ``[B, N, C]``.
        mask, queries, rotary: What :meth:`LLMLayer.forward` takes.
        weight (Tensor): The mapper, ``[D, C]``.
        method (str): 'fold' or 'absorb'.
        dtype (torch.dtype): The block's.
        remember (callable): See ``fold_memory.py``.

    Returns:
        Tensor: ``[B, Q, D]``, equal to ``layer(F.linear(x, weight), ...)``.
    """
    low = LowRankInput(x, weight, layer.attention_norm, layer.norm_form, dtype, remember)
    hidden = F.linear(take_tokens(x, queries).to(dtype), weight.to(dtype))
    normed = hidden
    # Where all tokens are folded, only a gate or an MLP that shares the norm reads it.
    if layer.attention_norm is not None and (queries is not None or layer.needs_normed):
        normed = layer.attention_norm(hidden)
    q = low.fold('q', layer.q_proj) if queries is None else layer.q_proj(normed)
    q = layer.heads(q, layer.q_norm)
    if method == 'absorb':
        out = absorb(q, low, layer, mask)
    else:
        k = layer.heads(low.fold('k', layer.k_proj), layer.k_norm)
        v = layer.heads(low.fold('v', layer.v_proj), layer.v_norm)
        q, k = layer.rotated(q, k, queries, rotary)
        out = layer.attend(q, k, v, mask)
    return layer.finish(hidden, normed, out)
