"""The forward pass of one language model layer, for every family.

``transformers``' own layers are causal, want rotary tables and compute every
token. The parts are theirs; the lines that join them are ours, so that a layer
can be bidirectional, without rotary, and compute only the tokens that are read.
"""

from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PretrainedConfig
from transformers.pytorch_utils import Conv1D

from lm4ve.blocks.families import LayerSpec

Queries = slice | Tensor | None
Rotary = tuple[Tensor, Tensor] | None


def take_tokens(x: Tensor, queries: Queries) -> Tensor:
    """Select tokens.

    Args:
        x (Tensor): ``[B, N, D]``.
        queries: None (all), a slice over N, or indices ``[B, Q]`` (int64).

    Returns:
        Tensor: ``[B, Q, D]``.
    """
    if queries is None:
        return x
    if isinstance(queries, slice):
        # Contiguous: on a strided input a 16-bit linear layer falls back to a
        # batched product, with a copy of its weight for every sample.
        return x[:, queries].contiguous()
    return x.gather(1, queries[..., None].expand(-1, -1, x.shape[-1]))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply rotary position embedding to the first ``cos.shape[-1]`` channels.

    Args:
        x (Tensor): ``[B, H, N, d]``.
        cos, sin (Tensor): ``[B or 1, N, r]`` with even ``r <= d``.
    """
    cos, sin = cos[:, None].to(x.dtype), sin[:, None].to(x.dtype)
    width = cos.shape[-1]
    turned, rest = x[..., :width], x[..., width:]
    left, right = turned.chunk(2, dim=-1)
    turned = turned * cos + torch.cat((-right, left), dim=-1) * sin
    return torch.cat((turned, rest), dim=-1) if rest.shape[-1] else turned


def attend(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, softcap: float | None = None
) -> Tensor:
    """Softmax attention.

    Args:
        q (Tensor): ``[B, H, Q, d]``.
        k, v (Tensor): ``[B, KV, N, d]`` where KV divides H.
        mask (Tensor, optional): Bool, broadcastable to ``[B, H, Q, N]``, True
            where a query may look.
        scale (float): Factor of the scores.
        softcap (float, optional): Scores s become ``c tanh(s / c)`` (gemma2).

    Returns:
        Tensor: ``[B, H, Q, d]``.
    """
    groups = q.shape[1] // k.shape[1]
    if groups > 1:
        k = k.repeat_interleave(groups, dim=1)
        v = v.repeat_interleave(groups, dim=1)
    if softcap is None:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    # The fused kernels cannot cap scores.
    scores = torch.tanh(q @ k.transpose(-2, -1) * (scale / softcap)) * softcap
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return torch.softmax(scores, dim=-1, dtype=torch.float32).to(v.dtype) @ v


class LLMLayer(nn.Module):
    """One layer of a language model as a visual encoder layer.

    All families end up with the same parts: separate q, k and v projections
    (fused ones are split, transposed ones turned), up to three norms a branch,
    and an MLP.

    Args:
        layer (nn.Module): ``transformers``' layer with its weights.
        spec (LayerSpec): What its parts are called.
        config (PretrainedConfig): The (text) config it was built from.
        wrap (callable): ``wrap(part, is_norm)`` returns the module to use for
            a part: itself, or a frozen one.
    """

    def __init__(
        self,
        layer: nn.Module,
        spec: LayerSpec,
        config: PretrainedConfig,
        wrap: Callable[[nn.Module, bool], nn.Module],
    ) -> None:
        super().__init__()
        modules: Iterable[Any] = layer.modules()
        for module in modules:
            if isinstance(module, nn.Dropout):
                module.p = 0.0  # the LLM's regularization is not the host's
            elif hasattr(module, 'residual_dropout'):  # starcoder2's MLP
                module.residual_dropout = 0.0

        def norm(name: str) -> nn.Module | None:
            return wrap(attrgetter(name)(layer), True) if name else None

        attention = attrgetter(spec.attention)(layer)
        heads = config.num_attention_heads
        q, k, v = _projections(attention, spec, config, heads)
        self.head_dim = q.out_features // heads
        self.parallel = spec.parallel
        self.shared_norm = spec.shared_norm
        self.norm_heads = spec.qk_norm == 'head'
        scale = getattr(attention, 'scaling', None)
        self.scale = float(self.head_dim**-0.5 if scale is None else scale)
        self.softcap = getattr(attention, 'attn_logit_softcapping', None)
        self.residual_scale = getattr(layer, 'residual_multiplier', 1.0)
        self.uses_rotary = bool(getattr(attention, 'use_rope', True))

        self.q_proj, self.k_proj, self.v_proj = (wrap(p, False) for p in (q, k, v))
        self.o_proj = wrap(_as_linear(attrgetter(spec.out)(attention)), False)
        self.q_norm, self.k_norm = (
            wrap(getattr(attention, name), True) if spec.qk_norm else None for name in spec.qk_norms
        )
        (self.attention_norm, self.attention_out_norm, self.attention_post_norm) = map(
            norm, spec.attention_norms
        )
        (self.mlp_norm, self.mlp_out_norm, self.mlp_post_norm) = map(norm, spec.mlp_norms)
        parts = [attrgetter(name)(layer) for name in spec.mlp]
        mlp = parts[0] if len(parts) == 1 else nn.Sequential(*parts)
        self.mlp = wrap(mlp, False)

    def forward(
        self, x: Tensor, mask: Tensor | None = None, queries: Queries = None, rotary: Rotary = None
    ) -> Tensor:
        """Run the layer.

        Args:
            x (Tensor): ``[B, N, D]``.
            mask (Tensor, optional): Bool, broadcastable to ``[B, H, Q, N]``.
            queries: Which tokens to compute: None, a slice, or ``[B, Q]``.
            rotary (tuple[Tensor, Tensor], optional): cos and sin ``[1, N, r]``.

        Returns:
            Tensor: ``[B, Q, D]``.
        """
        normed = _through(self.attention_norm, x)
        q = self.heads(self.q_proj(take_tokens(normed, queries)), self.q_norm)
        k = self.heads(self.k_proj(normed), self.k_norm)
        v = self.heads(self.v_proj(normed), None)
        q, k = self.rotated(q, k, queries, rotary)
        out = attend(q, k, v, mask, self.scale, self.softcap)
        return self.finish(take_tokens(x, queries), take_tokens(normed, queries), out)

    def rotated(
        self, q: Tensor, k: Tensor, queries: Queries, rotary: Rotary
    ) -> tuple[Tensor, Tensor]:
        """Return q and k with rotary position embedding, if there is any."""
        if rotary is None or not self.uses_rotary:
            return q, k
        cos, sin = (take_tokens(t.expand(len(q), -1, -1), queries) for t in rotary)
        return rotate(q, cos, sin), rotate(k, *rotary)

    def finish(self, x: Tensor, normed: Tensor, out: Tensor) -> Tensor:
        """From the heads' outputs on: projection, residuals, norms, MLP.

        Args:
            x (Tensor): The layer's input at the queries, ``[B, Q, D]``.
            normed (Tensor): The same after the norm before attention.
            out (Tensor): What the heads attended to, ``[B, H, Q, d]``.

        Returns:
            Tensor: ``[B, Q, D]``.
        """
        attended = self.o_proj(out.transpose(1, 2).flatten(2))
        attended = _through(self.attention_out_norm, attended) * self.residual_scale
        if self.parallel:
            return x + attended + self._mlp(normed if self.shared_norm else x)
        x = _through(self.attention_post_norm, x + attended)
        return _through(self.mlp_post_norm, x + self._mlp(x))

    def _mlp(self, x: Tensor) -> Tensor:
        x = self.mlp(_through(self.mlp_norm, x))
        return _through(self.mlp_out_norm, x) * self.residual_scale

    def heads(self, x: Tensor, norm: nn.Module | None) -> Tensor:
        """``[B, N, H * d] -> [B, H, N, d]``, with the q or k norm."""
        if norm is not None and not self.norm_heads:
            x = norm(x)
        x = x.unflatten(-1, (-1, self.head_dim))
        if norm is not None and self.norm_heads:
            x = norm(x)
        return x.transpose(1, 2)


def _through(module: nn.Module | None, x: Tensor) -> Tensor:
    out: Tensor = x if module is None else module(x)
    return out


def _as_linear(module: Any) -> nn.Linear:
    if isinstance(module, Conv1D):
        return _linear(module.weight.detach().t().contiguous(), module.bias)
    linear: nn.Linear = module
    return linear


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device='meta')
    linear.weight = nn.Parameter(weight.detach())
    if bias is not None:
        linear.bias = nn.Parameter(bias.detach())
    return linear


def _projections(
    attention: nn.Module, spec: LayerSpec, config: PretrainedConfig, heads: int
) -> list[nn.Linear]:
    """Return q, k and v as linear layers, split where the family fuses them."""
    modules = [_as_linear(attrgetter(name)(attention)) for name in spec.qkv]
    if spec.split is None:
        return modules
    (fused,) = modules
    head_dim = getattr(config, 'head_dim', None) or config.hidden_size // heads
    kv_heads = (fused.out_features // head_dim - heads) // 2
    rows = spec.split(config, heads, kv_heads, head_dim)
    return [_linear(fused.weight[r], None if fused.bias is None else fused.bias[r]) for r in rows]
