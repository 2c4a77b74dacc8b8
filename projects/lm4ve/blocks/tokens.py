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
    """Refuse masks and queries of another form, which would give a wrong result in silence.

    Args:
        x (Tensor): ``[B, N, D]``.
        padding_mask, queries: See :meth:`lm4ve.blocks.LLMBlock.forward`.

    Raises:
        UserError: One of them has another shape or type.
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


def refuse_empty_samples(x: Tensor, padding_mask: Tensor | None) -> Tensor:
    """Refuse samples of padding alone, which leave nothing to read or to average.

    Args:
        x (Tensor): ``[B, N, D]``.
        padding_mask (Tensor, optional): Bool ``[B, N]``, True = padding.

    Returns:
        Tensor: ``x``; see :func:`refuse_samples`.

    Raises:
        UserError: A sample is all padding; see :func:`refuse_samples`.
    """
    if padding_mask is None:
        return x
    reason = 'padding_mask marks every token of a sample as padding.'
    return refuse_samples(x, padding_mask.all(dim=1), reason)


def refuse_samples(x: Tensor, is_refused: Tensor, reason: str) -> Tensor:
    """Refuse samples that would give a wrong result in silence: by an error or by NaN.

    On a GPU, a training step would have to wait for the answer, and compiled code
    cannot ask. There the tokens of a refused sample become NaN, and with them the loss,
    by which ``lm4ve.EndingHook`` stops the training. In evaluation an error is
    raised on every device, since the largest of scores that are NaN would be a class.

    Args:
        x (Tensor): ``[B, N, D]``.
        is_refused (Tensor): Bool ``[B]``.
        reason (str): The message of the error.

    Returns:
        Tensor: ``x``, with NaN where no error can be raised.

    Raises:
        UserError: A sample is refused, on the CPU or in evaluation.
    """
    is_on_cpu = is_refused.device.type == 'cpu'
    is_training = torch.is_grad_enabled()
    if torch.compiler.is_compiling() or (is_training and not is_on_cpu):
        return x.masked_fill(is_refused[:, None, None], torch.nan)
    if is_refused.any():
        raise UserError(reason)
    return x
