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


def refuse_ambiguous(x: Tensor, channels: int, ruled_out: set[str]) -> None:
    """Refuse features of no named layout that also fit another one than the default.

    Args:
        x (Tensor): They fit the default of their number of dimensions.
        channels (int): How many channels are expected.
        ruled_out (set[str]): The layouts that earlier features have ruled out, to which
            this adds.

    Raises:
        UserError: Several common layouts have ``channels`` channels, as BCHW and BHWC
            of a map that is as wide as it has channels.
    """
    others = [name for name in COMMON if len(name) == x.dim()]
    others.remove(DEFAULTS[x.dim()])
    if all(name in ruled_out for name in others):
        return
    fitting = [name for name in COMMON if _fits(x, name, channels)]
    if len(fitting) < 2:
        # torch.compile would make its program once more, for what is known then.
        if not torch.compiler.is_compiling():
            ruled_out.update(others)
        return
    choices = ' or '.join(f"layout='{name}'" for name in fitting)
    raise UserError(
        f'neck.layout is not set, and the first features, {list(x.shape)} with '
        f'in_channels={channels}, may be laid out as {" or ".join(fitting)}. Fix: '
        f'{choices} of the neck.'
    )


def refuse_other_order(
    x: Tensor, samples: int, named: str | None, ruled_out: set[str], place: str
) -> None:
    """Refuse a sequence whose samples are where its layout has tokens.

    Args:
        x (Tensor): Features in an encoder. Only those of three dimensions are checked.
        samples (int): How many samples the encoder was given.
        named (str, optional): The layout that the user has named.
        ruled_out (set[str]): The layouts that earlier features have ruled out, to which
            this adds.
        place (str): The name of the features' module, for messages.

    Raises:
        UserError: Only the dimension of tokens has the size ``samples``. Or both have,
            no layout is named, and no earlier features have shown which one it is.
    """
    layout = named or DEFAULTS[3]
    if x.dim() != 3 or len(layout) != 3:
        return
    batch_dim = layout.index('B')
    token_dim = 3 - batch_dim - layout.index('C')  # the dimensions are 0, 1 and 2
    other = _swapped(layout, batch_dim, token_dim)
    if named is None and other in ruled_out:
        return
    fits = x.shape[batch_dim] == samples
    # A compiled program keeps nothing of what features show, and its last batch may
    # have as many samples as tokens.
    is_program = is_exported() or torch.compiler.is_compiling()
    if fits and is_program:
        return
    fits_the_other_way = x.shape[token_dim] == samples
    if not fits_the_other_way:
        if not is_program:
            ruled_out.add(other)
        return
    # Of one sample with one token both layouts are the same.
    if fits and (named is not None or samples == 1):
        return
    if fits:
        raise UserError(
            f"after='{place}' gives {list(x.shape)} of {samples} samples, and "
            'the first features do not show whether samples or tokens come first. '
            "Fix: layout='BNC' or layout='NBC' (as in CLIP's own transformer) of the "
            'neck.'
        )
    # Frames and windows are folded into samples: a multiple of them.
    if named is not None and x.shape[batch_dim] % samples == 0:
        return
    raise UserError(
        f"after='{place}' gives {list(x.shape)} of {samples} samples, which "
        f"layout={layout!r} has in dimension {batch_dim}. Fix: another layout (CLIP's "
        "is 'NBC'), or layout='BNC' if frames or windows are folded into the "
        'samples.'
    )


def _swapped(layout: str, first: int, second: int) -> str:
    """Return a layout with two of its letters exchanged."""
    letters = list(layout)
    letters[first], letters[second] = letters[second], letters[first]
    return ''.join(letters)


def _explain_mismatch(
    x: Tensor, channels: int, layout: str | None, letters: str
) -> str:
    """Write the message for features that do not have the expected layout or channels.

    It suggests each common layout in which they would have ``channels`` channels, and
    the number of channels that they have in the expected layout. A vector for each
    sample has no layout.

    Args:
        x (Tensor): The features.
        channels (int): The neck's field ``in_channels``.
        layout (str, optional): The neck's field ``layout``.
        letters (str): The expected layout, which is a default if the field is None; ''
            if there is no default for so many dimensions.
    """
    if x.dim() < min(DEFAULTS):
        return (
            'The neck reads tokens or a map (BNC, BCHW, BCTHW), but the encoder gives '
            f"{list(x.shape)}. Fix: a place before its pooling; in configs the backbone's "
            "out_type='raw'."
        )
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
