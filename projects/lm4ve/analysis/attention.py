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

_SPLIT = ('q_proj', 'k_proj', 'v_proj')
# Attributes of attention whose scores are not those of qkv alone: windows, rotations,
# channels in place of tokens, pooled tokens, tables by place.
_OTHER_SCORES = (
    *('window_size', 'rope', 'temperature', 'pool_q', 'rel_pos_h', 'attention_biases'),
    *('relative_position_bias_table', 'rel_pos'),
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
        linear = {n for n, m in module.named_children() if isinstance(m, nn.Linear)}
        projects = 'qkv' in linear or linear.issuperset(_SPLIT)
        others = any(getattr(module, n, None) is not None for n in _OTHER_SCORES)
        others |= 'Channel' in type(module).__name__  # DaViT's
        whole = projects and hasattr(module, 'num_heads') and not others
        if whole:  # timm's EVA is given its rotations
            whole = 'rope' not in inspect.signature(module.forward).parameters
        if whole or isinstance(module, nn.MultiheadAttention):
            found.append((name, module))
    return found


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
    if isinstance(module, nn.MultiheadAttention):
        qkv = F.linear(x, module.in_proj_weight, module.in_proj_bias)
    elif hasattr(module, _SPLIT[0]):
        qkv = torch.cat([getattr(module, n)(x) for n in _SPLIT], dim=-1)
    else:
        bias = module.qkv.bias
        if bias is None and hasattr(module, 'q_bias'):
            # VideoMAE: no bias for keys.
            bias = torch.cat(
                (module.q_bias, torch.zeros_like(module.v_bias), module.v_bias)
            )
        qkv = F.linear(x, module.qkv.weight, bias)
    q, k, _ = qkv.unflatten(-1, (3, module.num_heads, -1)).unbind(2)
    q, k = (
        getattr(module, n, nn.Identity())(t.transpose(1, 2))
        for n, t in (('q_norm', q), ('k_norm', k))
    )
    # As a field of some hosts, where it is not 1 / sqrt(d).
    scale = getattr(module, 'scale', None) or q.shape[-1] ** -0.5
    mask = None if padding_mask is None else ~padding_mask[:, None, None]
    return _row(q, k, scale, None, mask, row, padding_mask)


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
        normed = x if layer.attention_norm is None else layer.attention_norm(x)
        q = layer.heads(layer.q_proj(normed), layer.q_norm)
        k = layer.heads(layer.k_proj(normed), layer.k_norm)
        q, k = layer.rotated(q, k, None, rotary)
    k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
    return _row(q, k, layer.scale, layer.softcap, mask, row, padding_mask)


def _row(
    q: Tensor,
    k: Tensor,
    scale: float,
    softcap: float | None,
    mask: Tensor | None,
    row: Row,
    padding_mask: Tensor | None,
) -> Tensor:
    if row is not None:
        at = torch.as_tensor(row, device=q.device).expand(len(q))[:, None, None, None]
        q = q.take_along_dim(at, dim=2)
        # A mask of keys alone has one row for all queries.
        if mask is not None and mask.shape[2] > 1:
            mask = mask.take_along_dim(at, dim=2)
    scores = q.float() @ k.float().transpose(-2, -1) * scale
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if mask is not None and not mask.is_floating_point():
        scores = scores.masked_fill(~mask, -torch.inf)
    weights = torch.softmax(scores, dim=-1)
    if mask is not None and mask.is_floating_point():
        weights = weights * mask
    if padding_mask is None or row is not None:
        return weights.mean(dim=2)
    asked = (~padding_mask)[:, None, :, None].to(weights.dtype)
    return (weights * asked).sum(dim=2) / asked.sum(dim=2)
