"""Which query heads a layer has, and which head of keys and values each of them reads.

Of H query heads and K heads of keys and values, LLaMA's head j reads head j // (H / K):
those that share one are neighbors (``kv_heads='grouped'``). MedVisionLlama's code (arXiv
2410.02458, ``src/llm/llama.py``) repeats the K heads as a whole, so that head j reads
head j % K ('tiled'): another computation with the same weights.

A block may keep some query heads, ``heads=[28]``: the outputs of all others count as
zero, as where heads are ablated (Borrowed Geometry, arXiv 2605.00333). The attention
runs as a whole, and the output projection has columns of zeros for these heads. So that
projection must not train, nor carry an adapter, which would bring heads back.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from lm4ve.blocks.frozen import linear_of
from lm4ve.errors import UserError, check, require

#: The choices of ``block.kv_heads``.
GROUPED = 'grouped'
TILED = 'tiled'


def resolve_heads(heads: Any, count: int, layers: int) -> list[list[int]] | None:
    """Return which query heads each layer of a block keeps, in ascending order.

    Args:
        heads: The field ``block.heads``: the numbers of heads from 0, for every layer;
            or a list of numbers for each layer, None where it keeps all.
        count (int): How many query heads a layer has.
        layers (int): How many layers the block has.

    Returns:
        list[list[int]] | None: None where every layer keeps all.

    Raises:
        UserError: A list is empty, has a head twice, or has one that is not there; or
            there is not one for each layer.
    """
    if heads is None:
        return None
    check('block.heads', heads, kind=(list, tuple, range))
    is_of_each_layer = any(not isinstance(entry, int) for entry in heads)
    if not is_of_each_layer:
        kept = [_sorted_heads(heads, count)] * layers
    else:
        require(
            len(heads) == layers,
            f'block.heads has {len(heads)} lists for {layers} layer(s). Fix: one for each of '
            'block.layers, or the numbers of heads for all of them.',
        )
        kept = [_sorted_heads(entry, count) for entry in heads]
    if all(len(entry) == count for entry in kept):
        return None
    return kept


def _sorted_heads(heads: Any, count: int) -> list[int]:
    """Return the heads that a layer keeps, in ascending order; all of them for None.

    Raises:
        UserError: See :func:`resolve_heads`.
    """
    if heads is None:
        return list(range(count))
    check('The heads of a layer in block.heads', heads, kind=(list, tuple, range))
    for head in heads:
        field = f'A head of block.heads (a layer has {count})'
        check(field, head, kind=int, least=0, most=count - 1)
    if not heads:
        raise UserError(
            'block.heads keeps no head of a layer. Fix: name one, or None to keep all.'
        )
    if len(set(heads)) < len(heads):
        raise UserError(
            f'block.heads={list(heads)} names a head twice. Fix: each once.'
        )
    return sorted(heads)


def keep_heads(projection: nn.Linear, kept: Sequence[int], heads: int) -> nn.Linear:
    """Return an output projection that reads some query heads alone.

    Args:
        projection (nn.Linear): The attention's; its input is the heads' outputs, one
            head after the other. It stays as it is.
        kept (Sequence[int]): The numbers of the heads that it reads.
        heads (int): The number of all.

    Returns:
        nn.Linear: The same with columns of zeros for all other heads.
    """
    columns = torch.zeros(heads, projection.in_features // heads, dtype=torch.bool)
    columns[list(kept)] = True
    is_read = columns.flatten().to(projection.weight.device)
    return linear_of(projection.weight.where(is_read, 0), projection.bias)
