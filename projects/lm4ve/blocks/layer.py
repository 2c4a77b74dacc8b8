"""The forward pass of one language model layer, for every family.

``transformers``' own layers are causal, want rotary tables and compute every
token. The parts are theirs; the lines that join them are ours, so that a layer
can be bidirectional, without rotary, and compute only the tokens that are read.
"""

from operator import attrgetter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PretrainedConfig
from transformers.pytorch_utils import Conv1D

from lm4ve.blocks.families import LayerSpec
from lm4ve.blocks.families.spec import HALVES, NORMS
from lm4ve.blocks.frozen import linear_of, unwrap, values
from lm4ve.blocks.norms import form_of
from lm4ve.errors import UserError

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


def check_padding(padding_mask: Tensor) -> None:
    """Refuse a mask, bool ``[B, N]``, that leaves a sample nothing to read or to average."""
    if not torch.compiler.is_compiling() and padding_mask.all(dim=1).any():
        raise UserError('padding_mask marks every token of a sample as padding.')


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


class LLMLayer(nn.Module):
    """One layer of a language model as a visual encoder layer.

    All families end up with the same parts: separate q, k and v projections (fused ones
    are split, transposed ones turned), up to three norms a branch, and an MLP. A norm
    that a family lacks is an identity.

    Args:
        layer (nn.Module): ``transformers``' layer with its weights.
        spec (LayerSpec): What its parts are called.
        config (PretrainedConfig): The (text) config it was built from.
    """

    def __init__(self, layer: Any, spec: LayerSpec, config: PretrainedConfig) -> None:
        super().__init__()
        for (
            module
        ) in layer.modules():  # the language model's regularization is not the host's
            if isinstance(module, nn.Dropout):
                module.p = 0.0
            # Those of starcoder2's MLP and of mixtral's routing.
            for name in vars(module).keys() & {'residual_dropout', 'jitter_noise'}:
                setattr(module, name, 0.0)
        attention = attrgetter(spec.attention)(layer)
        projections = _projections(attention, spec, config)
        self.q_proj, self.k_proj, self.v_proj, self.gate_proj, self.o_proj = projections
        self.head_dim = projections[0].out_features // config.num_attention_heads
        self.parallel, self.qk_norm = spec.parallel, spec.qk_norm
        self.shared_norm = spec.parallel and 'mlp_norm' not in spec.norms
        self.norm_after_rotary = spec.norm_after_rotary
        self.turns_pairs = spec.rotary not in HALVES
        self.uses_rotary = spec.uses_rotary(attention)
        scale = getattr(attention, 'scaling', spec.scale)
        self.scale = float(self.head_dim**-0.5 if scale is None else scale)
        self.softcap = config.attn_logit_softcapping if spec.softcap else None
        self.clip = config.clip_qkv if 'clip_qkv' in spec.reads else None
        self.residual_scale = getattr(layer, 'residual_multiplier', 1.0)

        has_qk_norms = spec.qk_norm and hasattr(attention, spec.qk_norms[0])
        paths = (*(spec.qk_norms if has_qk_norms else ('', '')), spec.v_norm)
        own = (attrgetter(path)(attention) if path else nn.Identity() for path in paths)
        self.q_norm, self.k_norm, self.v_norm = own
        tensors = (
            getattr(attention, 'sinks', None),
            getattr(layer, 'layer_scalar', None),
        )
        self.sinks, self.layer_scale = (
            t if t is None else values(weight=t) for t in tensors
        )
        named = map(spec.norms.get, NORMS)
        norms = [attrgetter(path)(layer) if path else nn.Identity() for path in named]
        self.attention_norm, self.attention_out_norm, self.attention_post_norm = norms[
            :3
        ]
        self.mlp_norm, self.mlp_out_norm, self.mlp_post_norm = norms[3:]
        before = self.attention_norm
        has_norm = not isinstance(
            before, nn.Identity
        )  # modernbert's first layer writes one
        self.norm_form = form_of(before, config.hidden_size) if has_norm else None
        parts = [attrgetter(name)(layer) for name in spec.mlp]
        self.mlp = parts[0] if len(parts) == 1 else nn.Sequential(*parts)
        #: Whether :meth:`finish` reads the input after the norm before attention.
        self.needs_normed = self.shared_norm or self.gate_proj is not None

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        queries: Queries = None,
        rotary: Rotary = None,
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
        normed = self.attention_norm(x)
        q = self.heads(self.q_proj(take_tokens(normed, queries)), self.q_norm)
        k = self.heads(self.k_proj(normed), self.k_norm)
        v = self.heads(self.v_proj(normed), self.v_norm)
        q, k = self.rotated(q, k, queries, rotary)
        out = self.attend(q, k, v, mask)
        return self.finish(take_tokens(x, queries), take_tokens(normed, queries), out)

    def heads(self, x: Tensor, norm: nn.Module) -> Tensor:
        """``[B, N, H * d] -> [B, H, N, d]``, with the norm of q, k or v, if it is not late."""
        late = self.norm_after_rotary and norm is not self.v_norm
        form = '' if late else self.qk_norm
        x = norm(x) if form == 'all' else x
        x = x if self.clip is None else x.clamp(-self.clip, self.clip)
        x = x.unflatten(-1, (-1, self.head_dim))
        x = norm(x) if form == 'head' else x
        x = x.transpose(1, 2)
        return norm(x) if form == 'split' else x

    def rotated(
        self, q: Tensor, k: Tensor, queries: Queries, rotary: Rotary
    ) -> tuple[Tensor, Tensor]:
        """Return q and k with rotary position embedding, if there is any, and late norms."""
        if rotary is not None and self.uses_rotary:
            cos, sin = (
                take_tokens(t.expand(q.shape[0], -1, -1), queries) for t in rotary
            )
            q, k = (
                rotate(q, cos, sin, self.turns_pairs),
                rotate(k, *rotary, self.turns_pairs),
            )
        return (self.q_norm(q), self.k_norm(k)) if self.norm_after_rotary else (q, k)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """Softmax attention.

        Args:
            q (Tensor): ``[B, H, Q, d]``.
            k, v (Tensor): ``[B, KV, N, d]`` where KV divides H.
            mask (Tensor, optional): Broadcastable to ``[B, H, Q, N]``. Bool, True where
                a query may look; else factors of the weights after softmax.

        Returns:
            Tensor: ``[B, H, Q, d]``.
        """
        groups = q.shape[1] // k.shape[1]
        if groups > 1:
            k = k.repeat_interleave(groups, dim=1)
            v = v.repeat_interleave(groups, dim=1)
        factors = None
        if mask is not None and mask.is_floating_point():
            factors, mask = mask, None
        if self.softcap is None and self.sinks is None and factors is None:
            return F.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, scale=self.scale
            )
        # The fused kernels do not cap scores (gemma2), have no keys without values
        # (gpt_oss), and no factors.
        scores = q @ k.transpose(-2, -1) * self.scale
        if self.softcap is not None:
            scores = torch.tanh(scores / self.softcap) * self.softcap
        if mask is not None:
            scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        if self.sinks is not None:
            sinks = unwrap(self.sinks).weight.to(scores.dtype).view(1, -1, 1, 1)
            scores = torch.cat((scores, sinks.expand(*scores.shape[:-1], 1)), dim=-1)
        weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(v.dtype)
        weights = weights[..., : k.shape[-2]]
        return (weights if factors is None else weights * factors.to(v.dtype)) @ v

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
        attended = x + self.attention_out_norm(self.o_proj(out)) * self.residual_scale
        attended = self.attention_post_norm(attended)
        # Side by side, both branches read the layer's input; else the MLP reads the
        # first's output.
        read = attended if not self.parallel else normed if self.shared_norm else x
        out = self.mlp(self.mlp_norm(read))
        if isinstance(out, tuple):  # a mixture of experts also returns its routing
            out = out[0].view_as(x)
        x = self.mlp_post_norm(attended + self.mlp_out_norm(out) * self.residual_scale)
        return x if self.layer_scale is None else x * unwrap(self.layer_scale).weight


def _rows(linear: nn.Linear, rows: Tensor) -> nn.Linear:
    return linear_of(
        linear.weight[rows], None if linear.bias is None else linear.bias[rows]
    )


def _projections(
    attention: nn.Module, spec: LayerSpec, config: PretrainedConfig
) -> Any:
    """Return q, k, v, gate and output as linear layers, split where the family fuses them.

    v is k where values are keys (gemma4); the gate is None where there is none.
    """
    *qkv, out = (attrgetter(name)(attention) for name in (*spec.qkv, spec.out))
    *qkv, out = (
        linear_of(m.weight.detach().t().contiguous(), m.bias)
        if isinstance(m, Conv1D)
        else m
        for m in (*qkv, out)
    )
    heads = config.num_attention_heads
    if spec.split is not None:
        (fused,) = qkv
        head_dim = getattr(attention, 'head_dim', None) or config.hidden_size // heads
        kv_heads = (fused.out_features // head_dim - heads) // 2
        qkv = [_rows(fused, r) for r in spec.split(config, heads, kv_heads, head_dim)]
    q, k, v = qkv
    gate = None
    if spec.gated:
        rows = torch.arange(q.out_features).view(heads, 2, -1)
        q, gate = (_rows(q, rows[:, i].flatten()) for i in (0, 1))
    return q, k, k if v is None else v, gate, out
