"""The path of the tokens: mapper, block, mapper, and the residuals beside them.

:func:`paper_path` is section 3.1 of arXiv 2310.12973 in code. :func:`low_rank_path`
computes the same result with fewer operations, and calls :func:`paper_path` where it
cannot.
"""

from typing import Any, NamedTuple

from torch import Tensor, nn

from lm4ve.blocks.llm_block import LLMBlock
from lm4ve.blocks.tokens import Queries, take_tokens
from lm4ve.necks.layouts import mean_of_tokens


class PathParts(NamedTuple):
    """What a path is made of.

    The neck collects the parts for each call, because others replace them: peft the
    mappers, and ``lm4ve.fuse`` the first mapper and the block.

    Attributes:
        mapper_in (nn.Module): ``[B, N, C] -> [B, N, D]``.
        block (nn.Module): ``[B, N, D] -> [B, Q, D]``.
        mapper_out (nn.Module): ``[B, Q, D] -> [B, Q, C]``.
        residual (str): 'none', 'inner', 'outer' or 'both'.
        skip (nn.Module, optional): A layer ``C -> C`` for the outer residual.
        gate (Tensor, optional): A scalar ``[1]`` that multiplies the branch beside a
            residual.
        low_rank (str): 'auto', 'fold', 'absorb' or 'off'.
        averages (bool): Whether the second mapper gets the mean of the tokens instead
            of each. That is exact where nothing but a linear mapper stands before the
            mean, and saves the mapper for all tokens but one.
    """

    mapper_in: Any
    block: Any
    mapper_out: Any
    residual: str
    skip: nn.Module | None
    gate: Tensor | None
    low_rank: str
    averages: bool = False


def paper_path(
    tokens: Tensor, padding_mask: Tensor | None, queries: Queries, parts: PathParts
) -> Tensor:
    """Run mapper, block and mapper as modules.

    Args:
        tokens (Tensor): ``[B, N, C]``.
        padding_mask (Tensor, optional): Bool ``[B, N]``, True = padding.
        queries: Which tokens to compute: None (all), a slice over N, or indices
            ``[B, Q]``.
        parts (PathParts): The modules.

    Returns:
        Tensor: ``[B, Q, C]``; where it averages, ``[B, 1, C]``.
    """
    hidden = parts.mapper_in(tokens)
    out = parts.block(hidden, padding_mask=padding_mask, queries=queries)
    if has_inner_residual(parts.residual):
        kept = take_tokens(hidden, queries)
        out = kept + apply_gate(out, parts.gate)
    if parts.averages:
        out = average(out, padding_mask, queries)
    out = parts.mapper_out(out)
    return add_outer_residual(out, tokens, queries, parts)


def low_rank_path(
    tokens: Tensor, padding_mask: Tensor | None, queries: Queries, parts: PathParts
) -> Tensor:
    """Compute what :func:`paper_path` does from the rank C of the block's input.

    See ``lm4ve/blocks/low_rank``. The arguments and the result are those of
    :func:`paper_path`.
    """
    block = parts.block
    method = 'off'
    # A block of another class offers no choice. A wrapper, such as FSDP1's, lends its
    # block's methods, but only its own call gathers the block's weights.
    if isinstance(block, LLMBlock):
        method = block.choose_low_rank(parts.mapper_in, tokens, queries, parts.low_rank)
    if method == 'off':
        return paper_path(tokens, padding_mask, queries, parts)
    turned, factors = block.factorize(tokens, parts.mapper_in.weight)
    out = block.run_low_rank(turned, padding_mask, queries, factors, method)
    out = out.to(tokens.dtype)
    if has_inner_residual(parts.residual):
        kept = parts.mapper_in(take_tokens(tokens, queries))
        out = kept + apply_gate(out, parts.gate)
    if parts.averages:
        out = average(out, padding_mask, queries)
    out = parts.mapper_out(out)
    return add_outer_residual(out, tokens, queries, parts)


def average(out: Tensor, padding_mask: Tensor | None, queries: Queries) -> Tensor:
    """Average the block's output over the tokens that are not padding: ``[B, 1, D]``.

    Args:
        out (Tensor): ``[B, Q, D]``.
        padding_mask (Tensor, optional): Bool ``[B, N]``, True = padding.
        queries (slice, optional): The tokens that were computed: from the first that is
            no class or register token on, or all.
    """
    left_out = queries.start if isinstance(queries, slice) else 0
    return mean_of_tokens(out, padding_mask, left_out).unsqueeze(1)


def has_inner_residual(residual: str) -> bool:
    """Return whether the block's input is added to its output."""
    return residual in ('inner', 'both')


def has_outer_residual(residual: str) -> bool:
    """Return whether the neck's input is added to the second mapper's output."""
    return residual in ('outer', 'both')


def apply_gate(branch: Tensor, gate: Tensor | None) -> Tensor:
    """Multiply the branch beside a residual by the gate.

    Args:
        branch (Tensor): ``[B, Q, C]`` or ``[B, Q, D]``.
        gate (Tensor, optional): A scalar ``[1]``; None: the branch stays as it is.
    """
    if gate is None:
        return branch
    return branch * gate.to(branch.dtype)


def add_outer_residual(
    out: Tensor, tokens: Tensor, queries: Queries, parts: PathParts
) -> Tensor:
    """Add the neck's input to the second mapper's output, if the residual says so.

    Args:
        out (Tensor): ``[B, Q, C]``.
        tokens (Tensor): The neck's input, ``[B, N, C]``.
        queries: Which of them were computed.
        parts (PathParts): Its residual, skip layer and gate.

    Returns:
        Tensor: ``[B, Q, C]``.
    """
    if not has_outer_residual(parts.residual):
        return out
    kept = take_tokens(tokens, queries)
    if parts.skip is not None:
        kept = parts.skip(kept)
    return kept + apply_gate(out, parts.gate)
