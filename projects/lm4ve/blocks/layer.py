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
from lm4ve.blocks.frozen import Value, linear_of
from lm4ve.blocks.norms import form_of

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


def rotate(x: Tensor, cos: Tensor, sin: Tensor, pairs: bool = False) -> Tensor:
    """Apply rotary position embedding to the first ``cos.shape[-1]`` channels.

    Args:
        x (Tensor): ``[B, H, N, d]``.
        cos, sin (Tensor): ``[B or 1, N, r]`` with even ``r <= d``.
        pairs (bool): Neighboring channels turn together, not those of two halves.
    """
    cos, sin = cos[:, None].to(x.dtype), sin[:, None].to(x.dtype)
    width = cos.shape[-1]
    turned, rest = x[..., :width], x[..., width:]
    if pairs:
        left, right = turned[..., ::2], turned[..., 1::2]
        partner = torch.stack((-right, left), dim=-1).flatten(-2)
    else:
        left, right = turned.chunk(2, dim=-1)
        partner = torch.cat((-right, left), dim=-1)
    turned = turned * cos + partner * sin
    return torch.cat((turned, rest), dim=-1) if rest.shape[-1] else turned


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    scale: float,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """Softmax attention.

    Args:
        q (Tensor): ``[B, H, Q, d]``.
        k, v (Tensor): ``[B, KV, N, d]`` where KV divides H.
        mask (Tensor, optional): Bool, broadcastable to ``[B, H, Q, N]``, True
            where a query may look.
        scale (float): Factor of the scores.
        softcap (float, optional): Scores s become ``c tanh(s / c)`` (gemma2).
        sinks (Tensor, optional): ``[H]``, for each head the score of a further key that has
            no value (gpt_oss).

    Returns:
        Tensor: ``[B, H, Q, d]``.
    """
    groups = q.shape[1] // k.shape[1]
    if groups > 1:
        k = k.repeat_interleave(groups, dim=1)
        v = v.repeat_interleave(groups, dim=1)
    if softcap is None and sinks is None:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    # The fused kernels can neither cap scores nor have a key without a value.
    scores = q @ k.transpose(-2, -1) * scale
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    if sinks is not None:
        sinks = sinks.to(scores.dtype).view(1, -1, 1, 1).expand(*scores.shape[:-1], 1)
        scores = torch.cat((scores, sinks), dim=-1)
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(v.dtype)
    return weights[..., : k.shape[-2]] @ v


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

        def norm(owner: Any, name: str) -> nn.Module | None:
            part = attrgetter(name)(owner) if name else None
            # transformers writes "no norm" (modernbert's first layer) as an identity.
            return None if part is None or isinstance(part, nn.Identity) else wrap(part, True)

        def value(owner: Any, name: str) -> nn.Module | None:
            tensor = getattr(owner, name, None)
            return None if tensor is None else wrap(Value(tensor), False)

        attention = attrgetter(spec.attention)(layer)
        heads = config.num_attention_heads
        q, k, v, gate = _projections(attention, spec, config, heads)
        self.head_dim = q.out_features // heads
        self.parallel = spec.parallel
        self.shared_norm = spec.shared_norm
        self.qk_norm = spec.qk_norm
        self.norm_after_rotary = spec.norm_after_rotary
        self.turns_pairs = spec.turns_pairs
        scale = getattr(attention, 'scaling', spec.scale)
        self.scale = float(self.head_dim**-0.5 if scale is None else scale)
        self.softcap = getattr(attention, 'attn_logit_softcapping', None)
        self.clip = getattr(config, 'clip_qkv', None)
        self.residual_scale = getattr(layer, 'residual_multiplier', 1.0)
        self.uses_rotary = spec.uses_rotary(attention)

        self.q_proj, self.k_proj = wrap(q, False), wrap(k, False)
        self.v_proj = self.k_proj if v is None else wrap(v, False)
        self.gate_proj = None if gate is None else wrap(gate, False)
        self.o_proj = wrap(_as_linear(attrgetter(spec.out)(attention)), False)
        names = spec.qk_norms if spec.qk_norm and hasattr(attention, spec.qk_norms[0]) else ('', '')
        self.q_norm, self.k_norm = (norm(attention, name) for name in names)
        self.v_norm = norm(attention, spec.v_norm)
        self.sinks = value(attention, 'sinks')
        self.layer_scale = value(layer, 'layer_scalar')
        (self.attention_norm, self.attention_out_norm, self.attention_post_norm) = (
            norm(layer, name) for name in spec.attention_norms
        )
        before = self.attention_norm
        self.norm_form = None if before is None else form_of(before, config.hidden_size)
        (self.mlp_norm, self.mlp_out_norm, self.mlp_post_norm) = (
            norm(layer, name) for name in spec.mlp_norms
        )
        parts = [attrgetter(name)(layer) for name in spec.mlp]
        mlp = parts[0] if len(parts) == 1 else nn.Sequential(*parts)
        self.mlp = wrap(mlp, False)

    @property
    def needs_normed(self) -> bool:
        """Whether :meth:`finish` reads the input after the norm before attention."""
        return self.shared_norm or self.gate_proj is not None

    @property
    def keys_are_linear(self) -> bool:
        """Whether scores and values are products with the projected tokens and no more."""
        parts = (self.k_norm, self.v_norm, self.sinks, self.clip)
        return all(part is None for part in parts)

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
        v = self.heads(self.v_proj(normed), self.v_norm)
        q, k = self.rotated(q, k, queries, rotary)
        out = self.attend(q, k, v, mask)
        return self.finish(take_tokens(x, queries), take_tokens(normed, queries), out)

    def rotated(
        self, q: Tensor, k: Tensor, queries: Queries, rotary: Rotary
    ) -> tuple[Tensor, Tensor]:
        """Return q and k with rotary position embedding, if there is any, and late norms."""
        if rotary is not None and self.uses_rotary:
            cos, sin = (take_tokens(t.expand(q.shape[0], -1, -1), queries) for t in rotary)
            q, k = rotate(q, cos, sin, self.turns_pairs), rotate(k, *rotary, self.turns_pairs)
        if self.norm_after_rotary:
            q, k = _through(self.q_norm, q), _through(self.k_norm, k)
        return q, k

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """Attention by :func:`attend`, with this layer's numbers."""
        sinks = None if self.sinks is None else self.sinks()
        return attend(q, k, v, mask, self.scale, self.softcap, sinks)

    def finish(self, x: Tensor, normed: Tensor, out: Tensor) -> Tensor:
        """From the heads' outputs on: projection, residuals, norms, MLP.

        Args:
            x (Tensor): The layer's input at the queries, ``[B, Q, D]``.
            normed (Tensor): The same after the norm before attention.
            out (Tensor): What the heads attended to, ``[B, H, Q, d]``.

        Returns:
            Tensor: ``[B, Q, D]``.
        """
        out = out.transpose(1, 2).flatten(2)
        if self.gate_proj is not None:
            out = out * torch.sigmoid(self.gate_proj(normed))
        attended = self.o_proj(out)
        attended = _through(self.attention_out_norm, attended) * self.residual_scale
        if self.parallel:
            return x + attended + self._mlp(normed if self.shared_norm else x)
        x = _through(self.attention_post_norm, x + attended)
        x = _through(self.mlp_post_norm, x + self._mlp(x))
        return x if self.layer_scale is None else x * self.layer_scale()

    def _mlp(self, x: Tensor) -> Tensor:
        out = self.mlp(_through(self.mlp_norm, x))
        if isinstance(out, tuple):  # a mixture of experts also returns its routing
            out = out[0].view_as(x)
        return _through(self.mlp_out_norm, out) * self.residual_scale

    def heads(self, x: Tensor, norm: nn.Module | None) -> Tensor:
        """``[B, N, H * d] -> [B, H, N, d]``, with the norm of q, k or v, if it is not late."""
        if self.norm_after_rotary and norm is not self.v_norm:
            norm = None
        if norm is not None and self.qk_norm == 'all':
            x, norm = norm(x), None
        if self.clip is not None:
            x = x.clamp(-self.clip, self.clip)
        x = x.unflatten(-1, (-1, self.head_dim))
        if norm is not None and self.qk_norm == 'head':
            x = norm(x)
        x = x.transpose(1, 2)
        return norm(x) if norm is not None and self.qk_norm == 'split' else x


def _through(module: nn.Module | None, x: Tensor) -> Tensor:
    out: Tensor = x if module is None else module(x)
    return out


def _as_linear(module: Any) -> nn.Linear:
    if isinstance(module, Conv1D):
        return linear_of(module.weight.detach().t().contiguous(), module.bias)
    linear: nn.Linear = module
    return linear


def _rows(linear: nn.Linear, rows: Tensor) -> nn.Linear:
    return linear_of(linear.weight[rows], None if linear.bias is None else linear.bias[rows])


def _projections(
    attention: nn.Module, spec: LayerSpec, config: PretrainedConfig, heads: int
) -> tuple[nn.Linear, nn.Linear, nn.Linear | None, nn.Linear | None]:
    """Return q, k, v and the gate as linear layers, split where the family fuses them.

    v is None where values are keys (gemma4), the gate where there is none.
    """
    modules = [_as_linear(attrgetter(name)(attention)) for name in spec.qkv]
    if spec.split is not None:
        (fused,) = modules
        head_dim = getattr(config, 'head_dim', None) or config.hidden_size // heads
        kv_heads = (fused.out_features // head_dim - heads) // 2
        rows = spec.split(config, heads, kv_heads, head_dim)
        q, k, v = (_rows(fused, r) for r in rows)
        return q, k, v, None
    q, k, v = modules
    if not spec.gated:
        return q, k, v, None
    gated = torch.arange(q.out_features).view(heads, 2, -1)
    return _rows(q, gated[:, 0].flatten()), k, v, _rows(q, gated[:, 1].flatten())
