"""The tokens that go into a block, and those that are wanted of it."""

import torch
from torch import Tensor

from lm4ve.errors import UserError, check

#: Which tokens' outputs are wanted: None (all), a slice over N, or indices ``[B, Q]``.
Queries = slice | Tensor | None


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


def check_inputs(x: Tensor, padding_mask: Tensor | None, queries: Queries) -> None:
    """Refuse masks and queries that would give a wrong result in silence.

    Args:
        x (Tensor): ``[B, N, D]``.
        padding_mask, queries: See :meth:`lm4ve.blocks.LLMBlock.forward`.

    Raises:
        UserError: One of them has another shape or type, or a sample is all padding.
    """
    if queries is not None and not isinstance(queries, slice):
        check('queries', queries, kind=Tensor)
        has_shape = queries.dim() == 2 and queries.shape[0] == x.shape[0]
        if not has_shape or queries.dtype != torch.int64:
            raise UserError(
                f'queries must be a slice or int64 indices [{x.shape[0]}, Q], got '
                f'{queries.dtype} {list(queries.shape)}.'
            )
    if padding_mask is None:
        return
    if padding_mask.shape != x.shape[:2] or padding_mask.dtype != torch.bool:
        raise UserError(
            f'padding_mask must be bool {list(x.shape[:2])} (True = padding), got '
            f'{padding_mask.dtype} {list(padding_mask.shape)}.'
        )
    check_padding(padding_mask)


def check_padding(padding_mask: Tensor) -> None:
    """Refuse a mask, bool ``[B, N]``, that leaves a sample nothing to read or to average.

    Raises:
        UserError: A sample is all padding. Compiled code does not check it.
    """
    if torch.compiler.is_compiling():
        return
    if padding_mask.all(dim=1).any():
        raise UserError('padding_mask marks every token of a sample as padding.')
