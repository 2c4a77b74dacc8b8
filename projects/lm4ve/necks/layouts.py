"""How features are laid out, and how a neck sees them as tokens.

A layout is a word with a letter for each dimension: B for samples, C for channels, any
others for the grid or sequence of tokens.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lm4ve.blocks.layer import Queries, check_padding
from lm4ve.errors import UserError

#: Number of dimensions -> the layout where none is given.
DEFAULTS = {3: 'BNC', 4: 'BCHW', 5: 'BCTHW'}
#: Layouts that messages suggest.
COMMON = ('BNC', 'BCN', 'BCHW', 'BHWC', 'BCTHW', 'BTHWC', 'BTCHW')


def to_tokens(
    x: Tensor, channels: int, layout: str | None = None
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """See features as tokens.

    Args:
        x (Tensor): In ``layout``.
        channels (int): How many channels are expected.
        layout (str, optional): None: by the number of dimensions.

    Returns:
        tuple[Tensor, Callable]: ``[B, N, C]``, and a function that brings ``[B, Q, C]``
        (all tokens, of a map) back to the layout.

    Raises:
        UserError: Another number of dimensions or of channels; where a dimension has
            the expected number, the message gives the layout.
    """
    letters = layout or DEFAULTS.get(x.dim(), '')
    if len(letters) != x.dim() or x.shape[letters.index('C')] != channels:
        fits = [
            n for n in COMMON if len(n) == x.dim() and x.shape[n.index('C')] == channels
        ]
        advice = [f"layout='{n}' if those are the channels, or " for n in fits]
        given = (
            x.shape[letters.index('C')]
            if len(letters) == x.dim()
            else 'another number of'
        )
        raise UserError(
            f'in_channels={channels} and layout={layout!r} (by default BNC, BCHW or BCTHW) of the '
            f'neck, but the encoder gives {list(x.shape)}. Fix: set {"".join(advice)}'
            f"in_channels={given}; in configs also the backbone's out_type='raw'."
        )
    places = [i for i, n in enumerate(letters) if n not in 'BC']
    grid = [x.shape[i] for i in places]
    dims = [letters.index('B'), *places, letters.index('C')]

    def restore(out: Tensor) -> Tensor:
        # Of a sequence there may be fewer tokens than came in.
        out = out.unflatten(1, grid) if len(grid) > 1 else out
        return out.permute([dims.index(i) for i in range(len(dims))])

    return x.permute(dims).flatten(1, -2), restore


def check_layout(layout: str) -> None:
    """Check that a layout has a letter for each dimension.

    Raises:
        UserError: It has not, or lacks B or C.
    """
    if not (layout.isalpha() and {*'BC'} < {*layout} and len({*layout}) == len(layout)):
        raise UserError(
            f'neck.layout={layout!r} must have a letter for each dimension, B of samples and C '
            f'of channels among them, for example {", ".join(COMMON)} or NBC.'
        )


def check_norm(neck: Any, queries: Queries) -> None:
    """Refuse a norm whose statistics would be those of padding too.

    Raises:
        UserError: The norm is over tokens, not channels, and all of them are read.
    """
    reads = (
        neck.norm_first if neck.out_type == 'avg_featmap' else neck.out_type == 'raw'
    )
    if reads and queries is None and isinstance(neck.norm, (nn.GroupNorm, _BatchNorm)):
        kind = type(neck.norm).__name__
        raise UserError(
            f'neck.norm_cfg: {kind} would count padding in. Fix: LN or RMSNorm.'
        )


def mean_of_tokens(x: Tensor, padding_mask: Tensor | None, extra: int) -> Tensor:
    """Mean over the tokens that are not padding, ``[B, N, C] -> [B, C]``.

    The mask is that of the tokens with ``extra`` further ones before them.
    """
    if padding_mask is None:
        return x.mean(dim=1)
    check_padding(padding_mask[:, extra:])
    padding_mask = padding_mask[:, extra:, None]
    # where(), not a product: what stands at padded places may be anything.
    wide = torch.promote_types(
        x.dtype, torch.float32
    )  # 16 bits hold neither sum nor count
    total = torch.where(padding_mask, 0.0, x).sum(dim=1, dtype=wide)
    return (total / (~padding_mask).sum(dim=1, dtype=wide)).to(x.dtype)
