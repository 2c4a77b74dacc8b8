"""How features are laid out, and how a neck sees them as tokens.

A layout is a word with a letter for each dimension: B for samples, C for channels, any
others for the grid or sequence of tokens.
"""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from lm4ve.errors import UserError

#: Number of dimensions -> the layout where none is given.
DEFAULTS = {3: 'BNC', 4: 'BCHW', 5: 'BCTHW'}
#: What messages suggest.
_COMMON = ('BNC', 'BCN', 'BCHW', 'BHWC', 'BCTHW', 'BTHWC', 'BTCHW')


class Tokens(NamedTuple):
    """Features as tokens.

    Attributes:
        tokens (Tensor): ``[B, N, C]``.
        restore (Callable): Brings ``[B, Q, C]`` (all tokens, of a map) back to the layout.
        is_map (bool): The tokens have a grid of two or more dimensions.
    """

    tokens: Tensor
    restore: Callable[[Tensor], Tensor]
    is_map: bool


def check_layout(layout: str | None) -> str | None:
    """Return a layout.

    Raises:
        UserError: It is no word of three or more different letters with B and C.
    """
    if layout is None or (
        layout.isalpha() and {*'BC'} < {*layout} and len({*layout}) == len(layout)
    ):
        return layout
    raise UserError(
        f'neck.layout={layout!r} must have a letter for each dimension, B for samples and C for '
        f'channels among them, for example {", ".join(_COMMON)} or NBC.'
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
    letters = layout or DEFAULTS.get(x.dim(), '')
    if len(letters) != x.dim() or x.shape[letters.index('C')] != channels:
        fits = [
            f"model.neck.layout='{n}'"
            for n in _COMMON
            if len(n) == x.dim() and n != letters and x.shape[n.index('C')] == channels
        ]
        given = x.shape[letters.index('C')] if len(letters) == x.dim() else 'another number of'
        raise UserError(
            f'neck.in_channels={channels} and neck.layout={layout!r} (read as {letters or "none"}; '
            'by default tokens [B, N, C], maps [B, C, H, W] or [B, C, T, H, W]), but the backbone '
            f'gives {list(x.shape)}. Fix: set '
            + ''.join(f'{f} if those are the channels, or ' for f in fits)
            + f"model.neck.in_channels={given}, or the backbone's out_type='raw', final_norm=False."
        )
    dims = [letters.index('B'), *(i for i, n in enumerate(letters) if n not in 'BC')]
    dims.append(letters.index('C'))
    grid = [x.shape[i] for i in dims[1:-1]]
    is_map = len(grid) > 1

    def on_grid(out: Tensor, dim: int) -> Tensor:
        """Unfold tokens of a map; of a sequence there may be fewer than came in."""
        return out.unflatten(dim, grid) if is_map else out

    if dims[0] == 0 and dims[-1] == 1:  # channels first: a view
        tokens = x.flatten(2).transpose(1, 2)
        return Tokens(tokens, lambda out: on_grid(out.transpose(1, 2), 2), is_map)
    back = [dims.index(i) for i in range(len(dims))]
    tokens = x.permute(dims).flatten(1, -2)
    return Tokens(tokens, lambda out: on_grid(out, 1).permute(back), is_map)
