"""Attention weights of one query row, recomputed from a module's input.

Fused attention keeps no weights. For one row (the class token, the focal agent) or
the mean over all rows they are cheap to compute again.
"""

import inspect
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lm4ve.blocks.layer import LLMLayer
from lm4ve.tasks.base.analysis import Row

#: Names of three projections, where there is not one named 'qkv'.
_SPLIT = ('q_proj', 'k_proj', 'v_proj')
#: Attributes of attention whose scores are not those of qkv alone: windows, rotations,
#: channels in place of tokens, pooled tokens, tables by place.
_OTHER_SCORES = (
    'window_size',
    'rope',
    'temperature',
    'pool_q',
    'rel_pos_h',
    'attention_biases',
    'relative_position_bias_table',
    'rel_pos',
)


def encoder_attentions(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """List the self-attention modules that can be read, in the model's order.

    A module can be read if it has ``num_heads`` and one ``qkv`` projection (mmpretrain,
    mmaction2, timm) or three (CLIP and SigLIP of transformers), or is torch's own. Not
    if its scores depend on more: windows, rotations, biases by place, channels in place
    of tokens.
    """
    found = []
    for name, module in model.named_modules():
        if isinstance(module, nn.MultiheadAttention) or _is_readable(module):
            found.append((name, module))
    return found


def _is_readable(module: nn.Module) -> bool:
    """Return whether a module's attention follows from its qkv projections alone."""
    linear = {n for n, m in module.named_children() if isinstance(m, nn.Linear)}
    if 'qkv' not in linear and not linear.issuperset(_SPLIT):
        return False
    if not hasattr(module, 'num_heads'):
        return False
    if any(getattr(module, name, None) is not None for name in _OTHER_SCORES):
        return False
    if 'Channel' in type(module).__name__:  # DaViT's
        return False
    # timm's EVA is given its rotations.
    return 'rope' not in inspect.signature(module.forward).parameters


def attention_row(
    module: Any, x: Tensor, row: Row, padding_mask: Tensor | None = None
) -> Tensor:
    """Compute the softmax attention of an encoder's module.

    Args:
        module (nn.Module): One of :func:`encoder_attentions`.
        x (Tensor): Its input, ``[B, N, C]``, also where it wants ``[N, B, C]``.
        row (int | Tensor | None): The query: an index, one a sample (int64
            ``[B]``), or None for the mean over all queries that are not padding.
        padding_mask (Tensor, optional): Bool ``[B, N]``, True = padding.

    Returns:
        Tensor: ``[B, H, N]``, each row summing to 1.
    """
    qkv = _project(module, x)
    q, k, _ = qkv.unflatten(-1, (3, module.num_heads, -1)).unbind(2)
    q = q.transpose(1, 2)
    k = k.transpose(1, 2)
    if hasattr(module, 'q_norm'):
        q = module.q_norm(q)
    if hasattr(module, 'k_norm'):
        k = module.k_norm(k)
    # As a field of some hosts, where it is not 1 / sqrt(d).
    scale = getattr(module, 'scale', None)
    if not scale:
        scale = q.shape[-1] ** -0.5
    mask = None
    if padding_mask is not None:
        mask = ~padding_mask[:, None, None]
    if row is not None:
        q, mask = _take_row(q, mask, row)
    weights = _softmax(q.float() @ k.float().transpose(-2, -1) * scale, mask)
    return _mean_of_rows(weights, row, padding_mask)


def _project(module: Any, x: Tensor) -> Tensor:
    """Return queries, keys and values after each other, ``[B, N, 3 C]``."""
    if isinstance(module, nn.MultiheadAttention):
        return F.linear(x, module.in_proj_weight, module.in_proj_bias)
    if hasattr(module, _SPLIT[0]):
        return torch.cat([getattr(module, name)(x) for name in _SPLIT], dim=-1)
    bias = module.qkv.bias
    if bias is None and hasattr(module, 'q_bias'):
        # VideoMAE has no bias for keys.
        k_bias = torch.zeros_like(module.v_bias)
        bias = torch.cat((module.q_bias, k_bias, module.v_bias))
    return F.linear(x, module.qkv.weight, bias)


def llm_attention_row(
    layer: LLMLayer,
    x: Tensor,
    mask: Tensor | None,
    rotary: tuple | None,
    row: Row,
    padding_mask: Tensor | None = None,
) -> Tensor:
    """Compute the softmax attention of a language model's layer.

    Args:
        layer (LLMLayer): The layer.
        x (Tensor): Its input, ``[B, N, D]``.
        mask (Tensor, optional): The layer's: bool, True = may look, or factors after
            softmax.
        rotary (tuple[Tensor, Tensor], optional): The layer's rotary tables.
        row, padding_mask: See :func:`attention_row`.

    Returns:
        Tensor: ``[B, H, N]``.
    """
    with torch.autocast(x.device.type, enabled=False):
        normed = layer.attention_norm(x)
        q = layer.heads(layer.q_proj(normed), layer.q_norm)
        k = layer.heads(layer.k_proj(normed), layer.k_norm)
        q, k = layer.rotated(q, k, None, rotary)
    k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
    if row is not None:
        q, mask = _take_row(q, mask, row)
    scores = q.float() @ k.float().transpose(-2, -1) * layer.scale
    if layer.softcap is not None:
        scores = torch.tanh(scores / layer.softcap) * layer.softcap
    weights = _softmax(scores, mask)
    return _mean_of_rows(weights, row, padding_mask)


def _take_row(
    q: Tensor, mask: Tensor | None, row: int | Tensor
) -> tuple[Tensor, Tensor | None]:
    """Return one query of each sample, and its row of the mask.

    Args:
        q (Tensor): ``[B, H, N, d]``.
        mask (Tensor, optional): Broadcastable to ``[B, H, N, N]``.
        row (int | Tensor): An index, or one a sample (int64 ``[B]``).
    """
    index = torch.as_tensor(row, device=q.device)
    index = index.expand(len(q))[:, None, None, None]
    q = q.take_along_dim(index, dim=2)
    # A mask of keys alone has one row for all queries.
    if mask is not None and mask.shape[2] > 1:
        mask = mask.take_along_dim(index, dim=2)
    return q, mask


def _softmax(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Return the weights ``[B, H, Q, N]`` of scores under a mask.

    Args:
        scores (Tensor): fp32 ``[B, H, Q, N]``.
        mask (Tensor, optional): Bool, True = may look, or factors after softmax.
    """
    if mask is None:
        return torch.softmax(scores, dim=-1)
    if mask.is_floating_point():
        return torch.softmax(scores, dim=-1) * mask
    return torch.softmax(scores.masked_fill(~mask, -torch.inf), dim=-1)


def _mean_of_rows(weights: Tensor, row: Row, padding_mask: Tensor | None) -> Tensor:
    """Return ``[B, H, N]``: the one row, or the mean over rows that are not padding."""
    if padding_mask is None or row is not None:
        return weights.mean(dim=2)
    is_token = (~padding_mask)[:, None, :, None].to(weights.dtype)
    return (weights * is_token).sum(dim=2) / is_token.sum(dim=2)
