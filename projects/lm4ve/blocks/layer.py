"""The forward pass of one language model layer, for the families with a spec.

``transformers``' own layers compute every token. The parts are theirs; the lines that
join them are ours, so that a layer computes only the tokens that are read, and uses the
rank of its input (``low_rank/``).
"""

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PretrainedConfig

from lm4ve.blocks.families.spec import LayerSpec
from lm4ve.blocks.frozen import module_of, unwrap
from lm4ve.blocks.heads import GROUPED, TILED, keep_heads
from lm4ve.blocks.norms import NormForm, form_of
from lm4ve.blocks.rotary import Tables, rotate
from lm4ve.blocks.tokens import Queries, take_tokens


class LLMLayer(nn.Module):
    """One layer of a language model as a visual encoder layer.

    All families end up with the same parts: projections to queries, keys and values, up
    to three norms a branch, and an MLP. A norm that a family lacks is an identity.

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
        kept_heads (list[int]): The query heads that the output projection reads, for
            pictures of attention.
        shares_kv_heads (bool): Whether several query heads read one head of keys and
            values, but not all of them the same one.
        tiled (bool): Whether the heads of keys and values are repeated as a whole for
            the queries. Otherwise each is repeated for neighbors.
    """

    computes_all_tokens = False
    uses_rotary = True

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
        self.q_proj, self.k_proj, self.v_proj = (
            attrgetter(name)(attention) for name in spec.qkv
        )
        if self.v_proj is None:  # values are keys
            self.v_proj = self.k_proj
        self.o_proj = attrgetter(spec.out)(attention)
        heads = config.num_attention_heads
        self.head_dim = self.q_proj.out_features // heads
        heads_of_keys = self.k_proj.out_features // self.head_dim
        self.shares_kv_heads = 1 < heads_of_keys < heads
        self.tiled = kv_heads == TILED and self.shares_kv_heads
        self.kept_heads = list(range(heads))
        if kept_heads is not None:
            self.kept_heads = list(kept_heads)
            self.o_proj = keep_heads(self.o_proj, kept_heads, heads)
        self.scale = _score_scale(attention, spec, self.head_dim)

        # An identity stands for each part that the family lacks.
        self.q_norm = _part_or_identity(attention, 'q_norm' if spec.qk_norm else '')
        self.k_norm = _part_or_identity(attention, 'k_norm' if spec.qk_norm else '')
        self.v_norm = _part_or_identity(attention, spec.v_norm)
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
        self.norm_form = _form_of_norm(self.attention_norm)
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
        return self.finish(take_tokens(x, queries), out)

    def split_heads(self, x: Tensor, norm: nn.Module) -> Tensor:
        """Split queries, keys or values into heads, and apply their norm.

        Args:
            x (Tensor): Queries, keys or values, ``[B, N, H * d]``.
            norm (nn.Module): Their norm over the channels of a head, an identity if the
                family has none.

        Returns:
            Tensor: ``[B, H, N, d]``.
        """
        x = norm(x.unflatten(-1, (-1, self.head_dim)))  # [B, N, H, d]
        return x.transpose(1, 2)

    def rotated(
        self, q: Tensor, k: Tensor, queries: Queries, rotary: Tables | None
    ) -> tuple[Tensor, Tensor]:
        """Apply rotary position embedding to queries and keys.

        Args:
            q (Tensor): ``[B, H, Q, d]``.
            k (Tensor): ``[B, KV, N, d]``.
            queries: The places of the queries among the N tokens.
            rotary (tuple[Tensor, Tensor], optional): cos and sin of all tokens,
                ``[1, N, r]``. None: no rotary embedding.

        Returns:
            tuple[Tensor, Tensor]: q and k in the same shapes.
        """
        if rotary is None:
            return q, k
        cos, sin = rotary
        batch = q.shape[0]
        query_tables = (
            take_tokens(cos.expand(batch, -1, -1), queries),
            take_tokens(sin.expand(batch, -1, -1), queries),
        )
        return rotate(q, query_tables), rotate(k, rotary)

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
        if mask is None or not mask.is_floating_point():
            return F.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, scale=self.scale
            )
        # Scaled before the product: unscaled scores could leave float16's range.
        scores = (q * self.scale) @ k.transpose(-2, -1)
        weights = torch.softmax(scores, dim=-1, dtype=torch.float32)
        return (weights.to(v.dtype) * mask.to(v.dtype)) @ v

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

    def finish(self, x: Tensor, out: Tensor) -> Tensor:
        """Run what follows attention: output projection, residuals, norms and MLP.

        Args:
            x (Tensor): The layer's input at the queries, ``[B, Q, D]``.
            out (Tensor): The heads' outputs, ``[B, H, Q, d]``.

        Returns:
            Tensor: ``[B, Q, D]``.
        """
        branch = self.o_proj(out.transpose(1, 2).flatten(2))
        x = self.attention_post_norm(x + self.attention_out_norm(branch))
        branch = self.mlp(self.mlp_norm(x))
        x = self.mlp_post_norm(x + self.mlp_out_norm(branch))
        if self.layer_scale is not None:
            x = x * unwrap(self.layer_scale).weight
        return x


def switch_dropout_off(layer: nn.Module) -> None:
    """Switch off a layer's dropout, in place.

    A block is a layer of a visual encoder, which has a regularization of its own.
    """
    for module in layer.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0


def _score_scale(attention: Any, spec: LayerSpec, head_dim: int) -> float:
    """Return the number that attention scores are multiplied by before softmax.

    It is the library's own where its attention has one, then the spec's, else ``1 /
    sqrt(head_dim)``.
    """
    scale = getattr(attention, 'scaling', spec.scale)
    if scale is None:
        scale = head_dim**-0.5
    return float(scale)


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


def _form_of_norm(norm: nn.Module) -> NormForm | None:
    """Return what the norm before attention computes; None if it is an identity."""
    if isinstance(norm, nn.Identity):
        return None
    return form_of(norm)


def _join(parts: list[nn.Module]) -> nn.Module:
    """Join the modules of an MLP, which run one after another, into one module."""
    if len(parts) == 1:
        return parts[0]
    return nn.Sequential(*parts)
