"""The forward pass of one language model layer, for every family.

``transformers``' own layers are causal, want rotary tables and compute every
token. The parts are theirs; the lines that join them are ours, so that a layer
can be bidirectional, without rotary, and compute only the tokens that are read.
"""

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PretrainedConfig

from lm4ve.blocks.families.spec import HALVES, LayerSpec
from lm4ve.blocks.frozen import module_of, unwrap
from lm4ve.blocks.heads import GROUPED, TILED, count_kv_heads, keep_heads
from lm4ve.blocks.norms import NormForm, form_of
from lm4ve.blocks.projections import split_projections
from lm4ve.blocks.rotary import Tables, rotate
from lm4ve.blocks.tokens import Queries, take_tokens


class LLMLayer(nn.Module):
    """One layer of a language model as a visual encoder layer.

    All families end up with the same parts: separate q, k and v projections (fused ones
    are split, transposed ones turned), up to three norms a branch, and an MLP. A norm
    that a family lacks is an identity.

    Args:
        layer (nn.Module): ``transformers``' layer with its weights.
        spec (LayerSpec): What its parts are called.
        config (PretrainedConfig): The (text) config it was built from.
        kv_heads (str): 'grouped' or 'tiled', see :mod:`lm4ve.blocks.heads`.
        kept_heads (Sequence[int], optional): The query heads that the output projection
            reads, in ascending order, see :mod:`lm4ve.blocks.heads`. None: all.

    Attributes:
        computes_all_tokens (bool): Whether all tokens are computed, whatever the
            queries are. Here only the queries are.
        norm_form (NormForm | None): What the norm before attention computes; None
            where there is none.
        needs_normed (bool): Whether :meth:`finish` reads the input after that norm.
        shares_kv_heads (bool): Whether several query heads read one head of keys and
            values, but not all of them the same one.
        kept_heads (list[int]): The query heads that the output projection reads.
        tiled (bool): Whether the heads of keys and values are repeated as a whole for
            the queries. Otherwise each is repeated for neighbors.
    """

    computes_all_tokens = False

    # Modules whose attributes the code below reads, whatever a family calls their class.
    q_proj: Any
    k_proj: Any
    v_proj: Any

    def __init__(
        self,
        layer: Any,
        spec: LayerSpec,
        config: PretrainedConfig,
        kv_heads: str = GROUPED,
        kept_heads: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        switch_dropout_off(layer)
        attention = attrgetter(spec.attention)(layer)
        projections = split_projections(attention, spec, config)
        self.head_dim = projections.q.out_features // config.num_attention_heads
        q_norm, k_norm = _names_of_qk_norms(attention, spec)
        heads = config.num_attention_heads
        self.shares_kv_heads = 1 < count_kv_heads(projections, heads) < heads
        self.tiled = kv_heads == TILED and self.shares_kv_heads
        self.q_proj = projections.q
        self.k_proj = projections.k
        self.v_proj = projections.v
        self.gate_proj = projections.gate
        self.o_proj = projections.out
        self.kept_heads = list(range(heads))
        if kept_heads is not None:
            self.kept_heads = list(kept_heads)
            self.o_proj = keep_heads(projections.out, kept_heads, heads)

        # How scores and residuals are computed. The settings of a family are in its
        # spec, those of a checkpoint in its config or on the library's layer.
        self.qk_norm = spec.qk_norm
        self.norm_after_rotary = spec.norm_after_rotary
        self.turns_pairs = spec.rotary not in HALVES
        self.uses_rotary = spec.uses_rotary(attention)
        self.scale = _score_scale(attention, spec, self.head_dim)
        self.softcap = config.attn_logit_softcapping if spec.softcap else None
        self.clip = config.clip_qkv if 'clip_qkv' in spec.reads else None
        # In some families attention and MLP run side by side, in some of these after
        # the same norm.
        self.parallel = spec.parallel
        self.shared_norm = spec.parallel and 'mlp_norm' not in spec.norms
        self.residual_scale = getattr(layer, 'residual_multiplier', 1.0)
        # True if more than q, k and v reads the normed input, see finish.
        self.needs_normed = self.shared_norm or self.gate_proj is not None

        # An identity stands for each part that the family lacks.
        self.q_norm = _part_or_identity(attention, q_norm)
        self.k_norm = _part_or_identity(attention, k_norm)
        self.v_norm = _part_or_identity(attention, spec.v_norm)
        self.sinks = _tensor_as_module(attention, 'sinks')
        self.layer_scale = _tensor_as_module(layer, 'layer_scalar')
        norms = spec.norms
        self.attention_norm = _part_or_identity(layer, norms.get('attention_norm'))
        self.attention_out_norm = _part_or_identity(
            layer, norms.get('attention_out_norm')
        )
        self.attention_post_norm = _part_or_identity(
            layer, norms.get('attention_post_norm')
        )
        self.mlp_norm = _part_or_identity(layer, norms.get('mlp_norm'))
        self.mlp_out_norm = _part_or_identity(layer, norms.get('mlp_out_norm'))
        self.mlp_post_norm = _part_or_identity(layer, norms.get('mlp_post_norm'))
        self.norm_form = _form_of_norm(self.attention_norm, config.hidden_size)
        self.mlp = _join([attrgetter(name)(layer) for name in spec.mlp])

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        queries: Queries = None,
        rotary: Tables | None = None,
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
        q = self.split_heads(self.q_proj(take_tokens(normed, queries)), self.q_norm)
        k = self.split_heads(self.k_proj(normed), self.k_norm)
        v = self.split_heads(self.v_proj(normed), self.v_norm)
        q, k = self.rotated(q, k, queries, rotary)
        out = self.attend(q, k, v, mask)
        return self.finish(take_tokens(x, queries), take_tokens(normed, queries), out)

    def split_heads(self, x: Tensor, norm: nn.Module) -> Tensor:
        """Split queries, keys or values into heads, and apply their norm.

        The families' norms expect different shapes, so each shape on the way from the
        projection to the heads is the place of one kind of norm. Some families also
        clip what they project (olmo).

        Args:
            x (Tensor): Queries, keys or values, ``[B, N, H * d]``.
            norm (nn.Module): Their norm, an identity if the family has none. A norm
                that follows the rotary embedding is left to :meth:`rotated`.

        Returns:
            Tensor: ``[B, H, N, d]``.
        """
        follows_rotary = self.norm_after_rotary and norm is not self.v_norm
        norms_here = not follows_rotary
        if norms_here and self.qk_norm == 'all':  # over the H * d channels
            x = norm(x)
        if self.clip is not None:
            x = x.clamp(-self.clip, self.clip)
        x = x.unflatten(-1, (-1, self.head_dim))  # [B, N, H, d]
        if norms_here and self.qk_norm == 'head':
            x = norm(x)
        x = x.transpose(1, 2)  # [B, H, N, d]
        if norms_here and self.qk_norm == 'split':
            x = norm(x)
        return x

    def rotated(
        self, q: Tensor, k: Tensor, queries: Queries, rotary: Tables | None
    ) -> tuple[Tensor, Tensor]:
        """Apply rotary position embedding to queries and keys, and norms that follow it.

        Args:
            q (Tensor): ``[B, H, Q, d]``.
            k (Tensor): ``[B, KV, N, d]``.
            queries: The places of the queries among the N tokens.
            rotary (tuple[Tensor, Tensor], optional): cos and sin of all tokens,
                ``[1, N, r]``. None: no rotary embedding.

        Returns:
            tuple[Tensor, Tensor]: q and k in the same shapes.
        """
        if rotary is not None and self.uses_rotary:
            cos, sin = rotary
            batch = q.shape[0]
            query_tables = (
                take_tokens(cos.expand(batch, -1, -1), queries),
                take_tokens(sin.expand(batch, -1, -1), queries),
            )
            q = rotate(q, query_tables, self.turns_pairs)
            k = rotate(k, rotary, self.turns_pairs)
        if self.norm_after_rotary:
            q = self.q_norm(q)
            k = self.k_norm(k)
        return q, k

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """Compute softmax attention.

        Args:
            q (Tensor): ``[B, H, Q, d]``.
            k, v (Tensor): ``[B, KV, N, d]``, where KV divides H.
            mask (Tensor, optional): Broadcastable to ``[B, H, Q, N]``. Bool, True where
                a query may look; else factors of the weights after softmax.

        Returns:
            Tensor: ``[B, H, Q, d]``.
        """
        k = self.repeat_for_queries(k, q.shape[1])
        v = self.repeat_for_queries(v, q.shape[1])
        factors = None
        if mask is not None and mask.is_floating_point():
            factors = mask
            mask = None
        # The fused kernels do not cap scores (gemma2), have no keys without values
        # (gpt_oss), and no factors.
        is_plain = self.softcap is None and self.sinks is None and factors is None
        if is_plain:
            return F.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, scale=self.scale
            )
        weights = self._weights(q, k, mask).to(v.dtype)
        if factors is not None:
            weights = weights * factors.to(v.dtype)
        return weights @ v

    def repeat_for_queries(self, x: Tensor, heads: int) -> Tensor:
        """Repeat keys or values ``[B, KV, N, d]`` for the query heads that share them.

        Args:
            x (Tensor): Keys or values.
            heads (int): H, the number of query heads.

        Returns:
            Tensor: ``[B, H, N, d]``.
        """
        group = heads // x.shape[1]
        if group == 1:
            return x
        if self.tiled:
            return x.repeat(1, group, 1, 1)
        return x.repeat_interleave(group, dim=1)

    def _weights(self, q: Tensor, k: Tensor, mask: Tensor | None) -> Tensor:
        """Compute attention weights step by step, for scores with a cap or with sinks.

        Args:
            q (Tensor): ``[B, H, Q, d]``.
            k (Tensor): ``[B, H, N, d]``.
            mask (Tensor, optional): Bool, broadcastable to ``[B, H, Q, N]``.

        Returns:
            Tensor: ``[B, H, Q, N]`` in fp32. With sinks a query's weights sum to less
            than 1.
        """
        # Before the product: unscaled scores could leave float16's range.
        scores = (q * self.scale) @ k.transpose(-2, -1)
        if self.softcap is not None:
            scores = torch.tanh(scores / self.softcap) * self.softcap
        if mask is not None:
            scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        if self.sinks is not None:
            # One more key of each head, which has no value.
            sinks = unwrap(self.sinks).weight.to(scores.dtype).view(1, -1, 1, 1)
            column = sinks.expand(*scores.shape[:-1], 1)
            scores = torch.cat((scores, column), dim=-1)
        weights = torch.softmax(scores, dim=-1, dtype=torch.float32)
        return weights[..., : k.shape[-2]]

    def finish(self, x: Tensor, normed: Tensor, out: Tensor) -> Tensor:
        """Run what follows attention: output projection, residuals, norms and MLP.

        Args:
            x (Tensor): The layer's input at the queries, ``[B, Q, D]``.
            normed (Tensor): The same after the norm before attention.
            out (Tensor): The heads' outputs, ``[B, H, Q, d]``.

        Returns:
            Tensor: ``[B, Q, D]``.
        """
        out = out.transpose(1, 2).flatten(2)
        if self.gate_proj is not None:
            out = out * torch.sigmoid(self.gate_proj(normed))
        branch = self.attention_out_norm(self.o_proj(out))
        attended = self.attention_post_norm(x + branch * self.residual_scale)

        # Parallel branches both read the layer's input.
        if not self.parallel:
            mlp_input = attended
        elif self.shared_norm:
            mlp_input = normed
        else:
            mlp_input = x
        out = self.mlp(self.mlp_norm(mlp_input))
        if isinstance(out, tuple):  # a mixture of experts also returns its routing
            out = out[0].view_as(x)
        branch = self.mlp_out_norm(out)
        x = self.mlp_post_norm(attended + branch * self.residual_scale)
        if self.layer_scale is not None:
            x = x * unwrap(self.layer_scale).weight
        return x


def switch_dropout_off(layer: nn.Module) -> None:
    """Switch off a layer's dropout and routing noise, in place.

    A block is a layer of a visual encoder, which has a regularization of its own.
    """
    for module in layer.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        # Attributes of starcoder2's MLP and of mixtral's routing.
        for name in ('residual_dropout', 'jitter_noise'):
            if name in vars(module):
                setattr(module, name, 0.0)


def _score_scale(attention: Any, spec: LayerSpec, head_dim: int) -> float:
    """Return the number that attention scores are multiplied by before softmax.

    It is the library's own where its attention has one, then the spec's, else ``1 /
    sqrt(head_dim)``.
    """
    scale = getattr(attention, 'scaling', spec.scale)
    if scale is None:
        scale = head_dim**-0.5
    return float(scale)


def _names_of_qk_norms(attention: Any, spec: LayerSpec) -> tuple[str, str]:
    """Return the names of the norms of queries and keys in an attention module.

    Both are '' without such norms, which some families build only if the config asks
    for them.
    """
    q_norm, _ = spec.qk_norms
    if spec.qk_norm and hasattr(attention, q_norm):
        return spec.qk_norms
    return '', ''


def _part_or_identity(owner: nn.Module, path: str | None) -> Any:
    """Return the submodule at a path; an identity if the path is None or ''."""
    if not path:
        return nn.Identity()
    return attrgetter(path)(owner)


def _tensor_as_module(owner: nn.Module, name: str) -> nn.Module | None:
    """Move a tensor attribute into a module of its own, so that it can be frozen.

    None if the owner has no such attribute.
    """
    tensor = getattr(owner, name, None)
    if tensor is None:
        return None
    return module_of(weight=tensor)


def _form_of_norm(norm: nn.Module, width: int) -> NormForm | None:
    """Return what the norm before attention computes; None if it is an identity."""
    if isinstance(norm, nn.Identity):  # also in modernbert's own first layer
        return None
    return form_of(norm, width)


def _join(parts: list[nn.Module]) -> nn.Module:
    """Join the modules of an MLP, which run one after another, into one module."""
    if len(parts) == 1:
        return parts[0]
    return nn.Sequential(*parts)
