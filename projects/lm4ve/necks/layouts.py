"""How features are laid out, and how a neck reads them as tokens.

A layout is a word with a letter for each dimension: B for samples, C for channels, any
others for the grid or sequence of tokens.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from lm4ve.blocks.tokens import refuse_empty_samples
from lm4ve.errors import UserError

#: Number of dimensions -> the layout where none is given.
DEFAULTS = {3: 'BNC', 4: 'BCHW', 5: 'BCTHW'}
#: Layouts that encoders have, and messages suggest.
COMMON = ('BNC', 'BCN', 'BCHW', 'BHWC', 'BCTHW', 'BTHWC', 'BTCHW')


def to_tokens(
    x: Tensor, channels: int, layout: str | None = None
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Read features as tokens.

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
    if not _fits(x, letters, channels):
        raise UserError(_explain_mismatch(x, channels, layout, letters))
    grid_dims = [i for i, letter in enumerate(letters) if letter not in 'BC']
    order = [letters.index('B'), *grid_dims, letters.index('C')]
    grid = [x.shape[i] for i in grid_dims]

    def restore(out: Tensor) -> Tensor:
        """Bring ``[B, Q, C]`` back to the layout of ``x``."""
        # Only a map has a grid to restore; of a sequence some tokens may be left out.
        if len(grid) > 1:
            out = out.unflatten(1, grid)
        inverse = [order.index(i) for i in range(len(order))]
        return out.permute(inverse)

    return x.permute(order).flatten(1, -2), restore


def _fits(x: Tensor, layout: str, channels: int) -> bool:
    """Return whether features have a layout's dimensions, and ``channels`` channels."""
    return len(layout) == x.dim() and x.shape[layout.index('C')] == channels


def is_exported() -> bool:
    """Return whether a program is made of the model, for features of other sizes too.

    Then the sizes of the example say nothing, and a comparison of them would be part of
    the program. (``torch.compile`` makes another program for other sizes.)
    """
    return torch.jit.is_tracing() or torch.compiler.is_exporting()


def refuse_ambiguous(x: Tensor, channels: int) -> None:
    """Refuse features of no named layout that also fit another one than the default.

    Args:
        x (Tensor): They fit the default of their number of dimensions.
        channels (int): How many channels are expected.

    Raises:
        UserError: Several common layouts have ``channels`` channels, as BCHW and BHWC
            of a map that is as wide as it has channels.
    """
    fitting = [name for name in COMMON if _fits(x, name, channels)]
    if len(fitting) < 2:
        return
    choices = ' or '.join(f"layout='{name}'" for name in fitting)
    raise UserError(
        f'neck.layout is not set, and the first features, {list(x.shape)} with '
        f'in_channels={channels}, may be laid out as {" or ".join(fitting)}. Fix: '
        f'{choices} of the neck.'
    )


def _explain_mismatch(
    x: Tensor, channels: int, layout: str | None, letters: str
) -> str:
    """Write the message for features that do not have the expected layout or channels.

    It suggests each common layout in which they would have ``channels`` channels, and
    the number of channels that they have in the expected layout.

    Args:
        x (Tensor): The features.
        channels (int): The neck's field ``in_channels``.
        layout (str, optional): The neck's field ``layout``.
        letters (str): The expected layout, which is a default if the field is None; ''
            if there is no default for so many dimensions.
    """
    suggestions = []
    for name in COMMON:
        if _fits(x, name, channels):
            suggestions.append(f"layout='{name}' if those are the channels")
    if len(letters) == x.dim():
        own_channels = x.shape[letters.index('C')]
        suggestions.append(f'in_channels={own_channels}')
    if not suggestions:
        suggestions.append(f'a layout with a letter for each of {x.dim()} dimensions')
    return (
        f'in_channels={channels} and layout={layout!r} (by default BNC, BCHW or BCTHW) '
        f'of the neck, but the encoder gives {list(x.shape)}. Fix: set '
        f"{' or '.join(suggestions)}; in configs also the backbone's out_type='raw'."
    )


def check_layout(layout: str) -> None:
    """Check that a layout has a letter for each dimension.

    Raises:
        UserError: Something in it is no letter, a letter stands twice, or B or C or a
            letter of tokens is missing.
    """
    letters = set(layout)
    is_word = layout.isalpha() and len(letters) == len(layout)
    has_tokens = {'B', 'C'} < letters
    if not (is_word and has_tokens):
        raise UserError(
            f'neck.layout={layout!r} must have a letter for each dimension, B of '
            f'samples and C of channels among them, for example {", ".join(COMMON)} '
            'or NBC.'
        )


def mean_of_tokens(x: Tensor, padding_mask: Tensor | None, extra: int) -> Tensor:
    """Average the tokens that are not padding: ``[B, N, C] -> [B, C]``.

    Args:
        x (Tensor): ``[B, N, C]``.
        padding_mask (Tensor, optional): Bool ``[B, extra + N]``, True = padding.
        extra (int): How many tokens stood before those of ``x``, which the mask counts.

    Raises:
        UserError: All tokens of a sample are padding; see
            :func:`lm4ve.blocks.tokens.refuse_samples`.
    """
    if padding_mask is None:
        return x.mean(dim=1)
    padded = padding_mask[:, extra:]
    # Where that raises no error, the mean of nothing is 0 / 0, which is NaN.
    refuse_empty_samples(x, padded)
    padded = padded[..., None]
    # 16 bits hold neither sum nor count.
    wide = torch.promote_types(x.dtype, torch.float32)
    # where(), not a product: what stands at padded places may be anything.
    total = torch.where(padded, 0.0, x).sum(dim=1, dtype=wide)
    count = (~padded).sum(dim=1, dtype=wide)
    return (total / count).to(x.dtype)
