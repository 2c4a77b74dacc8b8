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
from lm4ve.tasks.base.layouts import Row

#: The names of the three projections of modules that have no common one, named 'qkv'.
_SPLIT = ('q_proj', 'k_proj', 'v_proj')
#: Attributes of modules that compute attention from more than queries and keys: windows,
#: rotary embeddings, attention over channels, pooled tokens, position biases.
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
    """List the self-attention modules whose weights :func:`attention_row` can recompute.

    They are torch's ``MultiheadAttention`` and the modules whose attention is a softmax
    over products of queries and keys and nothing else, as in most vision transformers of
    mmpretrain, mmaction2, timm and transformers.

    Returns:
        list[tuple[str, nn.Module]]: Names and modules, in the order of
        ``model.named_modules()``.
    """
    attentions = []
    for name, module in model.named_modules():
        if isinstance(module, nn.MultiheadAttention) or _is_recomputable(module):
            attentions.append((name, module))
    return attentions


def _is_recomputable(module: nn.Module) -> bool:
    """Return whether a module's attention follows from its queries and keys alone.

    It does if the module has ``num_heads`` and one ``qkv`` projection (mmpretrain,
    mmaction2, timm) or three (CLIP and SigLIP of transformers). It does not with
    windows, rotary embeddings, position biases or attention over channels.
    """
    linear = {n for n, m in module.named_children() if isinstance(m, nn.Linear)}
    if 'qkv' not in linear and not linear.issuperset(_SPLIT):
        return False
    if not hasattr(module, 'num_heads'):
        return False
    if any(getattr(module, name, None) is not None for name in _OTHER_SCORES):
        return False
    if 'Channel' in type(module).__name__:  # DaViT's
        return False
    # timm's EVA gets its rotary embedding as an argument.
    return 'rope' not in inspect.signature(module.forward).parameters


def attention_row(
    module: Any, x: Tensor, row: Row, padding_mask: Tensor | None = None
) -> Tensor:
    """Recompute one row of an encoder module's softmax attention from its input.

    Args:
        module (nn.Module): One of :func:`encoder_attentions`.
        x (Tensor): The module's input as ``[B, N, C]``, also for a module that takes
            ``[N, B, C]``.
        row (int | Tensor | None): The query: an index, an index for each sample (int64
            ``[B]``), or None for the mean over all queries that are not padding.
        padding_mask (Tensor, optional): Bool ``[B, N]``, True = padding.

    Returns:
        Tensor: fp32 ``[B, H, N]``: what each token gets of the row's attention, in each
        head; it sums to 1, and padding gets 0.
    """
    qkv = _project(module, x).unflatten(-1, (3, module.num_heads, -1))
    q, k, _ = qkv.unbind(dim=2)  # each [B, N, H, d]
    q = q.transpose(1, 2)
    k = k.transpose(1, 2)
    if hasattr(module, 'q_norm'):
        q = module.q_norm(q)
    if hasattr(module, 'k_norm'):
        k = module.k_norm(k)
    # Modules of some hosts have a scale of their own; the usual one is 1 / sqrt(d).
    scale = getattr(module, 'scale', None)
    if not scale:
        scale = q.shape[-1] ** -0.5
    mask = None
    if padding_mask is not None:
        mask = ~padding_mask[:, None, None]  # [B, 1, 1, N], True = may look
    if row is not None:
        q, mask = _take_row(q, mask, row)
    weights = _softmax(q.float() @ k.float().transpose(-2, -1) * scale, mask)
    return _mean_of_rows(weights, row, padding_mask)


def _project(module: Any, x: Tensor) -> Tensor:
    """Project tokens to queries, keys and values with an attention module's own weights.

    Args:
        module (nn.Module): One of :func:`encoder_attentions`. It is torch's
            ``MultiheadAttention`` with one matrix ``in_proj_weight``, or has three
            layers ``q_proj``, ``k_proj`` and ``v_proj``, or one layer ``qkv``.
        x (Tensor): ``[B, N, C]``.

    Returns:
        Tensor: ``[B, N, 3 C]``: queries, keys and values, in this order.
    """
    if isinstance(module, nn.MultiheadAttention):
        return F.linear(x, module.in_proj_weight, module.in_proj_bias)
    if hasattr(module, 'q_proj'):
        projected = [getattr(module, name)(x) for name in _SPLIT]
        return torch.cat(projected, dim=-1)
    bias = module.qkv.bias
    if bias is None and hasattr(module, 'q_bias'):
        # VideoMAE keeps the biases of queries and values beside the layer, and has none
        # for keys.
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
    """Recompute one row of a language model layer's softmax attention from its input.

    Args:
        layer (LLMLayer): The layer.
        x (Tensor): The layer's input, ``[B, N, D]``.
        mask (Tensor, optional): The mask that the layer was called with: bool, True =
            may look, or factors that multiply the weights after the softmax.
        rotary (tuple[Tensor, Tensor], optional): The rotary tables that the layer was
            called with.
        row, padding_mask: See :func:`attention_row`.

    Returns:
        Tensor: fp32 ``[B, H, N]``, of the H heads that the block keeps; each row sums to
        1, unless the mask holds factors.
    """
    with torch.autocast(x.device.type, enabled=False):
        normed = layer.attention_norm(x)
        q = layer.split_heads(layer.q_proj(normed), layer.q_norm)
        k = layer.split_heads(layer.k_proj(normed), layer.k_norm)
        q, k = layer.rotated(q, k, None, rotary)
    k = layer.repeat_for_queries(k, q.shape[1])
    if row is not None:
        q, mask = _take_row(q, mask, row)
    scores = q.float() @ k.float().transpose(-2, -1) * layer.scale
    weights = _softmax(scores, mask)[:, layer.kept_heads]
    return _mean_of_rows(weights, row, padding_mask)


def _take_row(
    q: Tensor, mask: Tensor | None, row: int | Tensor
) -> tuple[Tensor, Tensor | None]:
    """Return the queries of one row, ``[B, H, 1, d]``, and the mask of that row.

    Args:
        q (Tensor): ``[B, H, N, d]``.
        mask (Tensor, optional): Broadcastable to ``[B, H, N, N]``.
        row (int | Tensor): The row's index, or an index for each sample (int64 ``[B]``).
    """
    index = torch.as_tensor(row, device=q.device)
    index = index.expand(len(q))[:, None, None, None]
    q = q.take_along_dim(index, dim=2)
    # A mask of keys alone has one row for all queries.
    if mask is not None and mask.shape[2] > 1:
        mask = mask.take_along_dim(index, dim=2)
    return q, mask


def _softmax(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Return the attention weights, fp32 ``[B, H, Q, N]``, of scores under a mask.

    Args:
        scores (Tensor): fp32 ``[B, H, Q, N]``.
        mask (Tensor, optional): Broadcastable to the scores. Bool: True = may look.
            Floating point: factors that multiply the weights after the softmax.
    """
    if mask is None:
        return torch.softmax(scores, dim=-1)
    if mask.is_floating_point():
        return torch.softmax(scores, dim=-1) * mask
    return torch.softmax(scores.masked_fill(~mask, -torch.inf), dim=-1)


def _mean_of_rows(weights: Tensor, row: Row, padding_mask: Tensor | None) -> Tensor:
    """Reduce attention weights to one row, ``[B, H, N]``.

    Args:
        weights (Tensor): ``[B, H, 1, N]`` if a row was taken, else ``[B, H, N, N]``.
        row (int | Tensor | None): The row that was taken; None takes the mean over rows.
        padding_mask (Tensor, optional): Bool ``[B, N]``, True = padding; its rows are
            left out of the mean.
    """
    if row is not None or padding_mask is None:
        return weights.mean(dim=2)  # of a row that was taken, the row itself
    is_token = (~padding_mask)[:, None, :, None].to(weights.dtype)
    return (weights * is_token).sum(dim=2) / is_token.sum(dim=2)
