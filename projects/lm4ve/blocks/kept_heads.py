"""A block that keeps some query heads of its language model, ``heads=[28]``.

The outputs of all other heads are zero, as where heads are ablated (Borrowed Geometry,
arXiv 2605.00333). They are not computed: their rows of the query projection, their
columns of the output projection, and heads of keys and values that no query reads are
left out of the layer. So no gradient or adapter brings them back, and whatever reads a
layer's weights is right by construction.

In a few families the norms of queries and keys have weights for all heads together or
one by one (olmo2, cohere, stablelm). There queries and keys are projected and normed as
a whole, and then the kept queries are taken.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lm4ve.blocks.frozen import linear_of
from lm4ve.blocks.projections import Projections, select_rows
from lm4ve.errors import UserError, check, require

#: What the record of a block has where every head is kept.
ALL = 'all'


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


def has_weights_of_heads(norm: nn.Module, qk_norm: str) -> bool:
    """Return whether a norm of queries and keys depends on which heads there are.

    Args:
        norm (nn.Module): The norm, an identity if the family has none.
        qk_norm (str): Its form, see :class:`lm4ve.blocks.families.spec.LayerSpec`.
    """
    if isinstance(norm, nn.Identity):
        return False
    if qk_norm == 'head':  # cohere's has a gain for every head
        return any(weight.dim() > 1 for weight in norm.parameters())
    return True


def keep_heads(
    projections: Projections, kept: Sequence[int], heads: int, keeps_inputs: bool
) -> tuple[Projections, list[int] | None]:
    """Cut an attention's projections down to the query heads that are kept.

    Args:
        projections (Projections): The attention's. Query heads that share a head of
            keys and values are neighbors.
        kept (Sequence[int]): The places of these heads among all, in ascending order.
        heads (int): The number of all.
        keeps_inputs (bool): Leave the projections to queries, keys and values whole.

    Returns:
        tuple[Projections, list[int] | None]: The projections, and for each head of keys
        and values in them how many kept queries read it; None if that is the same
        number for all.
    """
    head_dim = projections.q.out_features // heads
    readers = [0] * (projections.k.out_features // head_dim)
    group = heads // len(readers)
    for place in kept:
        readers[place // group] += 1

    rows = _rows_of_heads(kept, head_dim)
    out = projections.out
    columns = out.weight[:, rows].contiguous()
    gate = projections.gate
    if gate is not None:
        gate = select_rows(gate, rows)
    projections = projections._replace(out=linear_of(columns, out.bias), gate=gate)
    if keeps_inputs:
        return projections, _unless_equal(readers)

    read = [place for place, count in enumerate(readers) if count > 0]
    kv_rows = _rows_of_heads(read, head_dim)
    k = select_rows(projections.k, kv_rows)
    v = k  # where values are keys
    if projections.v is not projections.k:
        v = select_rows(projections.v, kv_rows)
    q = select_rows(projections.q, rows)
    readers = [readers[place] for place in read]
    return projections._replace(q=q, k=k, v=v), _unless_equal(readers)


def _unless_equal(numbers: list[int]) -> list[int] | None:
    """Return the numbers, or None if they are all the same."""
    if len(set(numbers)) == 1:
        return None
    return numbers


def _rows_of_heads(heads: Sequence[int], head_dim: int) -> Tensor:
    """Return the indices of the rows of some heads in a projection to all."""
    starts = torch.tensor(heads)[:, None] * head_dim
    return (starts + torch.arange(head_dim)).flatten()


def take_heads(x: Tensor, heads: Sequence[int]) -> Tensor:
    """Return some heads of ``[B, H, N, d]``, by slices, which wait for no device."""
    return torch.cat([x[:, head : head + 1] for head in heads], dim=1)


def repeat_for_readers(x: Tensor, readers: Sequence[int]) -> Tensor:
    """Repeat each head of keys or values as often as queries read it.

    Args:
        x (Tensor): ``[B, KV, N, d]``.
        readers (Sequence[int]): How many queries read each of the KV heads.

    Returns:
        Tensor: ``[B, H, N, d]``, with H the sum of the readers.
    """
    repeated = []
    for head, count in enumerate(readers):
        repeated.append(x[:, head : head + 1].expand(-1, count, -1, -1))
    return torch.cat(repeated, dim=1)
