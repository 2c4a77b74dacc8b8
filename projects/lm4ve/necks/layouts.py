"""How features are laid out, and how a neck sees them as tokens.

A layout is a word with a letter for each dimension: B for samples, C for channels, any
others for the grid or sequence of tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from lm4ve.errors import UserError

#: Number of dimensions -> the layout where none is given.
DEFAULTS = {3: 'BNC', 4: 'BCHW', 5: 'BCTHW'}
#: What messages suggest.
_KNOWN = ('BNC', 'BCN', 'BCHW', 'BHWC', 'BCTHW', 'BTHWC', 'BTCHW')


@dataclass(frozen=True)
class Tokens:
    """Features as tokens.

    Attributes:
        tokens (Tensor): ``[B, N, C]``.
        restore (Callable): Takes ``[B, Q, C]`` (all tokens, of a map) back to the layout.
        is_map (bool): The tokens have a grid of two or more dimensions.
    """

    tokens: Tensor
    restore: Callable[[Tensor], Tensor]
    is_map: bool


def check_layout(layout: str | None) -> str | None:
    """Return a layout, or refuse one that is none.

    Raises:
        UserError: It is no word of three or more different letters with B and C.
    """
    if layout is None or (
        layout.isalpha() and {*'BC'} < {*layout} and len({*layout}) == len(layout)
    ):
        return layout
    raise UserError(
        f'neck.layout={layout!r} must have a letter for each dimension, B for samples and C for '
        f'channels among them, for example {", ".join(_KNOWN)} or NBC.'
    )


def to_tokens(x: Tensor, channels: int, layout: str | None = None) -> Tokens:
    """See features as tokens.

    Args:
        x (Tensor): In ``layout``.
        channels (int): How many channels are expected.
        layout (str, optional): None: by the number of dimensions.

    Raises:
        UserError: Another number of dimensions or of channels; where a dimension has the
            expected number, the message gives the layout.
    """
    letters = layout or DEFAULTS.get(x.dim())
    if letters is None or len(letters) != x.dim():
        wanted = (
            f"neck.layout='{layout}' takes {len(layout)} dimensions"
            if layout
            else ('LLMBlockNeck takes tokens [B, N, C], maps [B, C, H, W] or [B, C, T, H, W]')
        )
        raise UserError(
            f'{wanted}, got {x.dim()}: {list(x.shape)}. Fix: let the backbone give raw features '
            "(for a ViT of mmpretrain: backbone.out_type='raw', backbone.final_norm=False), or "
            'set neck.layout.'
        )
    if x.shape[letters.index('C')] != channels:
        raise UserError(_wrong_width(x, channels, letters))
    return _flatten(x, letters)


def _flatten(x: Tensor, letters: str) -> Tokens:
    dims = [letters.index('B'), *(i for i, n in enumerate(letters) if n not in 'BC')]
    dims.append(letters.index('C'))
    grid = [x.shape[i] for i in dims[1:-1]]
    is_map = len(grid) > 1
    if dims[0] == 0 and dims[-1] == 1:  # channels first: a view
        return Tokens(
            x.flatten(2).transpose(1, 2),
            lambda out: _grid(out.transpose(1, 2), 2, grid, is_map),
            is_map,
        )
    back = [dims.index(i) for i in range(len(dims))]
    return Tokens(
        x.permute(dims).flatten(1, -2),
        lambda out: _grid(out, 1, grid, is_map).permute(back),
        is_map,
    )


def _grid(out: Tensor, dim: int, grid: list[int], is_map: bool) -> Tensor:
    """Unfold tokens that are a map's; of a sequence there may be fewer than came in."""
    return out.unflatten(dim, grid) if is_map else out


def _wrong_width(x: Tensor, channels: int, letters: str) -> str:
    given = x.shape[letters.index('C')]
    found = (
        f'neck.in_channels={channels}, but the backbone gives {given} channels (features '
        f'{list(x.shape)}, read as {letters}). '
    )
    fits = [
        n
        for n in _KNOWN
        if len(n) == x.dim() and n != letters and x.shape[n.index('C')] == channels
    ]
    if fits:
        others = ' or '.join(f"model.neck.layout='{n}'" for n in fits)
        return (
            f'{found}Dimension {fits[0].index("C")} has {channels}. Fix: set {others} if that '
            f'dimension is the channels, else model.neck.in_channels={given}.'
        )
    return f'{found}Fix: set model.neck.in_channels={given}.'
