"""The padding mask of a host as a block needs it: bool ``[B, N]``, True = padding."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lm4ve.blocks.tokens import refuse_samples
from lm4ve.errors import UserError
from lm4ve.necks.host_masks import (
    ADDITIVE,
    BY_VALUES,
    KEEP,
    PADDING,
    PIXELS,
    Mask,
    advice_for,
)

#: A score with so much added to it has no weight left.
_NO_WEIGHT = -1000.0


class Marked(NamedTuple):
    """Where a mask marks padding, or pairs that do not attend.

    Attributes:
        hidden (Tensor): Bool, in the shape of the mask.
        is_wrong (Tensor, optional): Bool ``[1]``, True: the values are not those of such
            a mask. None: they are bools, which cannot be wrong.
    """

    hidden: Tensor
    is_wrong: Tensor | None = None


def padding_of(mask: Mask, x: Tensor, layout: str, extra: int) -> tuple[Tensor, Tensor]:
    """Read a mask as the padding of a place's tokens.

    Args:
        mask (Mask): The mask, which has a value.
        x (Tensor): The features at the place, in ``layout``.
        layout (str): See :class:`lm4ve.necks.LLMBlockNeck`.
        extra (int): How many class and register tokens come first, which a mask may not
            count.

    Returns:
        tuple[Tensor, Tensor]: Bool ``[B, N]``, True = padding; and ``x``, which is NaN
        if the values are wrong and no error can be raised, see
        :func:`lm4ve.blocks.tokens.refuse_samples`.

    Raises:
        UserError: It is not of as many samples or tokens as the features, or has other
            values than such a mask.
    """
    name = str(mask.name)
    kind = mask.call.signature.kind
    value = mask.call.given[name]
    if not isinstance(value, Tensor):
        raise UserError(
            f"{kind} is given '{name}' {type(value).__name__}, which lm4ve cannot read. "
            + advice_for(name)
        )
    samples = x.shape[layout.index('B')]
    grid = []
    for size, letter in zip(x.shape, layout, strict=True):
        if letter not in 'BC':
            grid.append(size)
    tokens = math.prod(grid)
    marked = mark(value, mask.reading)
    if mask.reading == PIXELS:
        padding = _of_pixels(marked.hidden, grid)
    else:
        padding = _of_tokens(marked.hidden)
    if padding is not None:
        # A mask may have one row for all samples, and leave out the extra tokens.
        if padding.shape[0] == 1 and samples > 1:
            padding = padding.expand(samples, -1)
        if extra and padding.shape[1] + extra == tokens:
            padding = F.pad(padding, (extra, 0), value=False)
    if padding is None or list(padding.shape) != [samples, tokens]:
        raise UserError(
            f"{kind} is given '{name}' {list(value.shape)}, but the block's place has "
            f'{samples} samples of {tokens} tokens ({list(x.shape)}): the host leaves '
            'tokens out, adds or packs some. Fix: a place whose own call has the mask, '
            'num_extra_tokens for class tokens in front, or '
            f"mask=dict({name}='ignore') if nothing is padded."
        )
    if marked.is_wrong is not None:
        meaning = f"a mask that reads '{mask.reading}'"
        if mask.reading == BY_VALUES:
            meaning = f'a mask: zeros and ones, or zeros and less than {_NO_WEIGHT:.0f}'
        reason = (
            f"{kind} is given '{name}', whose values are not those of {meaning}. "
            + advice_for(name)
        )
        x = refuse_samples(x, marked.is_wrong.to(x.device), reason)
    return padding.to(x.device), x


def mark(mask: Tensor, reading: str) -> Marked:
    """Return where a mask marks padding, or pairs that do not attend.

    Args:
        mask (Tensor): In any shape.
        reading (str): One of ``host_masks.READINGS`` but 'ignore', or 'by values'.
    """
    if mask.dtype == torch.bool:
        return Marked(mask if reading == PADDING else ~mask)
    is_float = mask.is_floating_point()
    if not is_float:
        mask = mask.long()
    is_zero = mask == 0
    is_low = mask < _NO_WEIGHT
    if reading in (KEEP, PIXELS):
        return Marked(is_zero, _any(~(mask >= 0)))
    if reading == PADDING and not is_float:
        return Marked(~is_zero, _any(mask < 0))
    is_sum = is_zero | is_low
    if reading in (ADDITIVE, PADDING):
        return Marked(is_low, _any(~is_sum))
    assert reading == BY_VALUES
    is_one = mask == 1
    is_flag = is_zero | is_one
    if not is_float:
        return Marked(is_zero, _any(~is_flag))
    keeps = is_one.any()
    is_wrong = torch.where(keeps, ~is_flag, ~is_sum).any()
    if mask.dim() == 2:
        # Zeros alone could be padding alone, or none of it.
        is_wrong = is_wrong | ~(keeps | is_low.any())
    return Marked(torch.where(keeps, is_zero, is_low), is_wrong[None])


def _any(flags: Tensor) -> Tensor:
    """Return whether one of some flags is set, as bool ``[1]``."""
    return flags.any()[None]


def _of_tokens(hidden: Tensor) -> Tensor | None:
    """Read a mask of tokens or of pairs.

    Args:
        hidden (Tensor): Bool ``[B, N]``, ``[B, Q, N]`` or ``[B, heads, Q, N]``.

    Returns:
        Tensor | None: Bool ``[B, N]``, True = padding; None: of another shape.
    """
    if hidden.dim() == 4:
        hidden = hidden.flatten(1, 2)
    if hidden.dim() == 3:
        # A token is padding if no query reads it.
        hidden = hidden.all(dim=1)
    if hidden.dim() != 2:
        return None
    return hidden


def _of_pixels(hidden: Tensor, grid: list[int]) -> Tensor | None:
    """Read a mask of pixels at a map's positions, as hosts do.

    Args:
        hidden (Tensor): Bool ``[B, H, W]`` or ``[B, 1, H, W]``.
        grid (list[int]): The size of the map.

    Returns:
        Tensor | None: Bool ``[B, N]``, True = padding; None: of another shape.
    """
    if hidden.dim() == 4 and hidden.shape[1] == 1:
        hidden = hidden[:, 0]
    if hidden.dim() != 3:
        return None
    kept = ~hidden
    if len(grid) == 2:
        resized = F.interpolate(kept[:, None].float(), size=grid)
        kept = resized[:, 0] > 0
    return ~kept.flatten(1)


def pad_nested(x: Tensor) -> tuple[Tensor, Tensor, list[int]]:
    """Pad a nested tensor, by which torch's own encoder leaves padding out in evaluation.

    Args:
        x (Tensor): Nested ``[B, *, C]``.

    Returns:
        tuple[Tensor, Tensor, list[int]]: ``[B, N, C]``, its padding as bool ``[B, N]``,
        and the samples' lengths.
    """
    lengths = [len(sample) for sample in x.unbind()]
    padded = torch.nested.to_padded_tensor(x, 0.0)
    counts = torch.tensor(lengths, device=padded.device)
    places = torch.arange(padded.shape[1], device=padded.device)
    return padded, places >= counts[:, None], lengths


def nest(x: Tensor, lengths: list[int], layout: torch.layout) -> Tensor:
    """Bring ``[B, N, C]`` back into a nested tensor; see :func:`pad_nested`."""
    samples = [sample[:n] for sample, n in zip(x, lengths, strict=True)]
    return torch.nested.as_nested_tensor(samples, layout=layout)
