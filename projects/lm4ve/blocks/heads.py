"""Which query heads a layer has, and which head of keys and values each of them reads.

Of H query heads and K heads of keys and values, LLaMA's head j reads head j // (H / K):
those that share one are neighbors (``kv_heads='grouped'``). MedVisionLlama's code (arXiv
2410.02458, ``src/llm/llama.py``) repeats the K heads as a whole, so that head j reads
head j % K ('tiled'): another computation with the same weights.

A block may keep some query heads, ``heads=[28]``. The outputs of all others are zero, as
where heads are ablated (Borrowed Geometry, arXiv 2605.00333). They are not computed:
their rows of the query projection, their columns of the output projection, and heads of
keys and values that no query reads are left out of the layer. So no gradient or adapter
brings them back, and whatever reads a layer's weights is right by construction.

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

#: The choices of ``block.kv_heads``.
GROUPED = 'grouped'
TILED = 'tiled'
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


def count_kv_heads(projections: Projections, heads: int) -> int:
    """Return how many heads of keys and values an attention with ``heads`` queries has."""
    head_dim = projections.q.out_features // heads
    return projections.k.out_features // head_dim


def keep_heads(
    projections: Projections,
    kept: Sequence[int],
    heads: int,
    tiled: bool,
    keeps_inputs: bool,
) -> tuple[Projections, list[int] | None]:
    """Cut an attention's projections down to the query heads that are kept.

    Args:
        projections (Projections): The attention's.
        kept (Sequence[int]): The numbers of these heads, in ascending order.
        heads (int): The number of all.
        tiled (bool): Whether the heads of keys and values are repeated as a whole.
        keeps_inputs (bool): Leave the projections to queries, keys and values whole.

    Returns:
        tuple[Projections, list[int] | None]: The projections, and for each kept query
        the head of keys and values in them that it reads; None if equally many
        neighbors share each of these heads, in their order.
    """
    head_dim = projections.q.out_features // heads
    kv_heads = count_kv_heads(projections, heads)
    sources = [_source_of(head, heads, kv_heads, tiled) for head in kept]

    rows = _rows_of_heads(kept, head_dim)
    out = projections.out
    columns = out.weight[:, rows].contiguous()
    gate = projections.gate
    if gate is not None:
        gate = select_rows(gate, rows)
    projections = projections._replace(out=linear_of(columns, out.bias), gate=gate)
    if keeps_inputs:
        return projections, _unless_grouped(sources, kv_heads)

    read = sorted(set(sources))
    kv_rows = _rows_of_heads(read, head_dim)
    k = select_rows(projections.k, kv_rows)
    v = k  # where values are keys
    if projections.v is not projections.k:
        v = select_rows(projections.v, kv_rows)
    q = select_rows(projections.q, rows)
    sources = [read.index(source) for source in sources]
    projections = projections._replace(q=q, k=k, v=v)
    return projections, _unless_grouped(sources, len(read))


def _source_of(head: int, heads: int, kv_heads: int, tiled: bool) -> int:
    """Return which head of keys and values a query head reads.

    Args:
        head (int): The number of the query head.
        heads (int): How many query heads there are.
        kv_heads (int): How many heads of keys and values.
        tiled (bool): Whether these are repeated as a whole.
    """
    if tiled:
        return head % kv_heads
    group = heads // kv_heads
    return head // group


def _unless_grouped(sources: list[int], kv_heads: int) -> list[int] | None:
    """Return the sources, or None if equally many neighbors read each head in turn."""
    group = len(sources) // kv_heads
    grouped = []
    for source in range(kv_heads):
        grouped.extend([source] * group)
    if sources == grouped:
        return None
    return sources


def _rows_of_heads(heads: Sequence[int], head_dim: int) -> Tensor:
    """Return the indices of the rows of some heads in a projection to all."""
    starts = torch.tensor(heads)[:, None] * head_dim
    return (starts + torch.arange(head_dim)).flatten()


def take_heads(x: Tensor, heads: Sequence[int]) -> Tensor:
    """Return some heads of ``[B, H, N, d]``, by slices, which wait for no device.

    A head may be taken several times.
    """
    return torch.cat([x[:, head : head + 1] for head in heads], dim=1)
