"""The padding mask of a host, as the block inside of it needs it: bool ``[B, N]``.

A host passes to its own layers which tokens are padding, by an argument of its forward
call. A block that a hook puts between them gets none of those arguments, and would
attend to padding. So the calls of the modules around the block's place are noted while
they run (``host_calls.py``), and the mask is found in them by its name
(``host_signature.py``): first among the arguments of the place itself, then of the
module around it, and so on. The innermost comes first, since what a layer is given has
the length of what it returns.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lm4ve.errors import UserError
from lm4ve.necks import mask_names
from lm4ve.necks.host_calls import Call
from lm4ve.necks.host_signature import advice_for

#: A score with so much added to it has no weight left.
_NO_WEIGHT = -1000.0


class MaskArgument(NamedTuple):
    """The argument that marks padding at a place.

    Attributes:
        call (Call): The call that has it.
        name (str, optional): Its name. None: the call could have one, but has not, so
            that nothing is padded.
    """

    call: Call
    name: str | None


def find_mask(calls: list[Call]) -> MaskArgument | None:
    """Find the argument that marks padding at a place.

    What the user named comes first. Then the innermost call decides that has an
    argument of the table: without a value there is no padding, whatever stands further
    out, which may belong to another sequence (a decoder's layer is not padded as its
    encoder is).

    Args:
        calls (list[Call]): The place's own call, then those around it, the innermost
            first.

    Returns:
        MaskArgument | None: None: no call has such an argument.

    Raises:
        UserError: A mask is unknown, or it is not clear which one holds.
    """
    for call in calls:
        call.signature.refuse_unreadable(call.given)
    # An argument of the user's is the host's, whose layers may have another of the same
    # name: the outermost comes first.
    for call in reversed(calls):
        own = call.signature.masks(call.given, own=True)
        name = _one_of(call, own)
        if name is not None:
            return MaskArgument(call, name)
    for call in calls:
        known = call.signature.masks(call.given, own=False)
        name = _one_of(call, known)
        if name is not None:
            _refuse_two_inputs(call, name)
        if known:
            return MaskArgument(call, name)
    return None


def _one_of(call: Call, candidates: list[str]) -> str | None:
    """Return the only argument among candidates that has a value and marks padding.

    None if there is none.

    Args:
        call (Call): The call.
        candidates (list[str]): Names of arguments.

    Raises:
        UserError: There are two.
    """
    marking = []
    for name in candidates:
        value = call.given.get(name)
        if (
            value is not None
            and call.signature.reading(name, value) != mask_names.IGNORE
        ):
            marking.append(name)
    if not marking:
        return None
    if len(marking) > 1:
        raise UserError(
            f'{call.signature.kind} is given {" and ".join(marking)}, and either could '
            f'be the mask of the place. {advice_for(marking[0])}'
        )
    return marking[0]


def _refuse_two_inputs(call: Call, name: str) -> None:
    """Refuse the mask of a module that reads two sequences.

    Raises:
        UserError: It could be the other one's.
    """
    inputs = [n for n in mask_names.INPUTS if call.given.get(n) is not None]
    if len(inputs) > 1:
        raise UserError(
            f'{call.signature.kind} is given {" and ".join(inputs)}, and {name} is the '
            f'mask of one of them. {advice_for(name)}'
        )


def padding_of(call: Call, name: str, x: Tensor, layout: str, extra: int) -> Tensor:
    """Read a mask as the padding of a place's tokens.

    Args:
        call (Call): The call that has the mask.
        name (str): The argument's name.
        x (Tensor): The features at the place, in ``layout``.
        layout (str): See :class:`lm4ve.necks.LLMBlockNeck`.
        extra (int): How many class and register tokens come first, which a mask may not
            count.

    Returns:
        Tensor: Bool ``[B, N]``, True = padding.

    Raises:
        UserError: It is not of as many samples or tokens as the features.
    """
    value = call.given[name]
    samples = x.shape[layout.index('B')]
    grid = []
    for size, letter in zip(x.shape, layout, strict=True):
        if letter not in 'BC':
            grid.append(size)
    tokens = math.prod(grid)
    padding = _read_padding(call, name, grid)
    if padding is not None:
        # A mask may have one row for all samples, and leave out the extra tokens.
        if padding.shape[0] == 1 and samples > 1:
            padding = padding.expand(samples, -1)
        if extra and padding.shape[1] + extra == tokens:
            padding = F.pad(padding, (extra, 0), value=False)
    if padding is None or list(padding.shape) != [samples, tokens]:
        raise UserError(
            f"{call.signature.kind} is given '{name}' {list(value.shape)}, but the "
            f"block's place has {samples} samples of {tokens} tokens "
            f'({list(x.shape)}): the host leaves tokens out, adds or packs some. Fix: '
            'a place whose own call has the mask, num_extra_tokens for class tokens in '
            f"front, or mask=dict({name}='ignore') if nothing is padded."
        )
    return padding.to(x.device)


def _read_padding(call: Call, name: str, grid: list[int]) -> Tensor | None:
    """Read an argument as padding, whatever number of samples and tokens it has.

    Args:
        call (Call): The call that has the argument.
        name (str): The argument's name.
        grid (list[int]): The size of the map at the place, for masks of pixels.

    Returns:
        Tensor | None: Bool ``[B or 1, N]``, True = padding; None: a shape that is no
        mask of tokens.
    """
    value = call.given[name]
    reading = call.signature.reading(name, value)
    if reading == mask_names.PIXELS:
        return _padding_of_pixels(value, grid)
    return _padding_of_tokens(value, reading)


def _padding_of_tokens(mask: Tensor, reading: str) -> Tensor | None:
    """Read a mask of tokens or of pairs.

    Args:
        mask (Tensor): ``[B, N]``, ``[B, Q, N]`` or ``[B, heads, Q, N]``.
        reading (str): 'padding', 'keep' or 'additive'.

    Returns:
        Tensor | None: Bool ``[B, N]``, True = padding; None: of another shape.
    """
    padding = _hides(mask, reading)
    if padding.dim() == 4:
        padding = padding.flatten(1, 2)
    if padding.dim() == 3:
        # A token is padding if no query reads it.
        padding = padding.all(dim=1)
    if padding.dim() != 2:
        return None
    return padding


def _hides(mask: Tensor, reading: str) -> Tensor:
    """Return where a mask marks padding, or a pair that is not attended to.

    Args:
        mask (Tensor): In any shape.
        reading (str): 'padding', 'keep' or 'additive'.

    Returns:
        Tensor: Bool, in the shape of the mask.
    """
    if reading == mask_names.KEEP:
        return mask == 0
    if mask.is_floating_point():
        # Added to scores, whether the host calls it padding or a sum.
        return mask < _NO_WEIGHT
    if reading == mask_names.ADDITIVE:
        return mask == 0  # of bools True is kept
    return mask != 0


def _padding_of_pixels(mask: Tensor, grid: list[int]) -> Tensor | None:
    """Read a mask of pixels at a map's positions, as hosts do.

    Args:
        mask (Tensor): ``[B, H, W]`` or ``[B, 1, H, W]``, 1 is kept.
        grid (list[int]): The size of the map.

    Returns:
        Tensor | None: Bool ``[B, N]``, True = padding; None: of another shape.
    """
    if mask.dim() == 4 and mask.shape[1] == 1:
        mask = mask[:, 0]
    if mask.dim() != 3:
        return None
    kept = mask != 0
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
