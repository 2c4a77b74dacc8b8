"""Which argument of a host marks the padding among the tokens of a place.

It is found by its name, among the arguments of the place itself, then of the module
around it, and so on (``host_calls.py``). The innermost comes first, since what a layer
is given has the length of what it returns. Few names are known, those of :data:`MASKS`.
An argument of another name is told by ``mask=`` of ``lm4ve.wrap``; one whose name has
'mask' and that nobody has explained is refused. ``padding.py`` reads its values.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mmengine.logging import print_log
from torch import Tensor

from lm4ve.errors import UserError, check, did_you_mean, listing
from lm4ve.necks.host_calls import Call, Signature

# How a mask of tokens ``[B, N]`` or of pairs ``[B, Q, N]`` or ``[B, heads, Q, N]`` reads.

#: True is padding, as in torch; floats are added to scores.
PADDING = 'padding'
#: 1 is kept and 0 is padding, as in transformers.
KEEP = 'keep'
#: Floats are added to scores, -inf is padding; of bools True is kept.
ADDITIVE = 'additive'
#: 1 is kept, of masks of pixels or patches ``[B, H, W]``.
PIXELS = 'pixels'
#: It does not mark padding among the tokens of the place.
IGNORE = 'ignore'
#: What may be named at ``mask=``.
READINGS = (PADDING, KEEP, ADDITIVE, PIXELS, IGNORE)
#: By its values: 'keep' if they are bools, or zeros and ones; 'additive' if they are
#: zeros and very negative.
BY_VALUES = 'by values'

#: Dimensions of ``[B, N]``.
_TOKENS = 2
#: Dimensions of ``[B, heads, Q, N]``.
_PAIRS = 4

#: Names of arguments that mark padding -> number of dimensions -> reading.
MASKS: dict[str, dict[int, str]] = {
    # --- torch.nn
    'key_padding_mask': {_TOKENS: PADDING},
    'src_key_padding_mask': {_TOKENS: PADDING},
    'tgt_key_padding_mask': {_TOKENS: PADDING},
    # --- transformers
    'attention_mask': {_TOKENS: BY_VALUES, _PAIRS: BY_VALUES},
    # --- timm, which makes the second of the first
    'patch_valid': {_TOKENS: KEEP},
    'attn_mask': {_PAIRS: BY_VALUES},
}
#: Beside one of those, a mask of the sequence that cross-attention reads.
_OF_ANOTHER_SEQUENCE = (
    'memory_key_padding_mask',
    'memory_mask',
    'encoder_attention_mask',
)
#: Beside one of torch's, ``[N, N]``: which pairs of tokens attend to each other.
_OF_PAIRS = ('mask', 'src_mask', 'tgt_mask', 'attn_mask')
#: Start of the names by which samples lie one after the other without padding.
_PACKED = ('cu_seqlens', 'cu_seq_lens')
#: Arguments that are each a sequence: of a module that reads two, such as
#: cross-attention, a mask may be of either.
_INPUTS = (
    'hidden_states',
    'key_value_states',
    'encoder_hidden_states',
    'input_ids',
    'decoder_input_ids',
    'pixel_values',
    'pixel_values_videos',
    'input_values',
    'input_features',
    'visual_embeds',
)

_ADVICE = (
    "Fix: lm4ve.wrap(..., mask=dict({name}='keep')) (1 is kept), 'padding' (True is "
    "padding), 'additive' (-inf is padding), 'pixels' (of [B, H, W]) or 'ignore' (no "
    'padding).'
)


class Mask(NamedTuple):
    """The argument that marks padding at a place.

    Attributes:
        call (Call): The call that has it.
        name (str, optional): Its name. None: the call could have one, but has not, so
            that nothing is padded.
        reading (str): How it reads.
    """

    call: Call
    name: str | None
    reading: str = IGNORE


def advice_for(name: str) -> str:
    """Return the advice of a message: how to declare what the argument ``name`` means."""
    return _ADVICE.format(name=name)


def find_mask(calls: Sequence[Call], told: Mapping[str, str]) -> Mask | None:
    """Find the argument that marks padding at a place.

    What the user named comes first. Then the innermost call decides that has an
    argument of :data:`MASKS`, as the host's own layer there reads no other: without a
    value there is no padding. What stands further out may belong to another sequence (a
    decoder's layer is not padded as its encoder is).

    Args:
        calls (Sequence[Call]): The place's own call, then those around it, the
            innermost first.
        told (Mapping): What the user says: name -> one of :data:`READINGS`.

    Returns:
        Mask | None: None: no call has such an argument.

    Raises:
        UserError: A mask is unknown, or it is not clear which one holds.
    """
    for call in calls:
        _refuse_packed(call, told)
    marking = [name for name in told if told[name] != IGNORE]
    # An argument of the user's is the host's, whose layers may have another of the same
    # name: the outermost comes first.
    for call in reversed(calls):
        name = _only_given(call, marking)
        if name is not None:
            return Mask(call, name, told[name])
    found: Mask | None = None
    for call in calls:
        known = [name for name in _known(call) if name not in told]
        given = _given(call, known)
        if found is None or not given:
            _refuse_unknown(call, told)
        if found is None and known:
            found = _known_mask(call, known)
        if given:
            break
    return found


def _known_mask(call: Call, known: Sequence[str]) -> Mask:
    """Return the mask of a call that has arguments of :data:`MASKS`.

    Raises:
        UserError: It has two masks or sequences, or the mask is of another shape.
    """
    name = _only_given(call, known)
    if name is None:
        return Mask(call, None)
    value = call.given[name]
    reading = None
    if isinstance(value, Tensor):
        reading = MASKS[name].get(value.dim())
    if reading is None:
        raise UserError(
            f"{call.signature.kind} is given '{name}' {_describe(value)}, which lm4ve "
            f'cannot read. {advice_for(name)}'
        )
    inputs = [n for n in _INPUTS if call.given.get(n) is not None]
    has_mask_of_its_own = 'encoder_attention_mask' in call.signature.names
    if has_mask_of_its_own and 'encoder_hidden_states' in inputs:
        inputs.remove('encoder_hidden_states')
    if len(inputs) > 1:
        raise UserError(
            f'{call.signature.kind} is given {" and ".join(inputs)}, and {name} is the '
            f'mask of one of them. {advice_for(name)}'
        )
    return Mask(call, name, reading)


def _known(call: Call) -> list[str]:
    """Return the arguments of :data:`MASKS` that a call has, with a value or without."""
    names = call.signature.names
    return [name for name in MASKS if name in names or name in call.given]


def _given(call: Call, names: Sequence[str]) -> list[str]:
    """Return those of some arguments that have a value, and may mark padding."""
    given = []
    for name in names:
        value = call.given.get(name)
        if value is not None and not _is_of_pairs(call, name, value):
            given.append(name)
    return given


def _only_given(call: Call, names: Sequence[str]) -> str | None:
    """Return the only one of some arguments that has a value; None if none has one.

    Raises:
        UserError: Two have one.
    """
    given = _given(call, names)
    if not given:
        return None
    if len(given) > 1:
        raise UserError(
            f'{call.signature.kind} is given {" and ".join(given)}, and either could '
            f'be the mask of the place. {advice_for(given[0])}'
        )
    return given[0]


def _is_of_pairs(call: Call, name: str, value: Any) -> bool:
    """Return whether an argument is torch's ``[N, N]``, which stands beside its padding."""
    is_square = isinstance(value, Tensor) and value.dim() == 2
    if name not in _OF_PAIRS or not is_square:
        return False
    return any(n.endswith('key_padding_mask') for n in call.signature.names)


def _refuse_packed(call: Call, told: Mapping[str, str]) -> None:
    """Refuse a call whose samples lie one after the other, which a block would mix.

    Raises:
        UserError: It has lengths of packed samples.
    """
    for name, value in call.given.items():
        is_packed = str(name).startswith(_PACKED) and value is not None
        if is_packed and name not in told:
            raise UserError(
                f"{call.signature.kind} is given '{name}': it packs several samples into "
                'one sequence, which a block would mix. Fix: padded batches '
                '(attn_implementation).'
            )


def _refuse_unknown(call: Call, told: Mapping[str, str]) -> None:
    """Refuse a call with an argument that may be a mask, and that nobody has explained.

    Raises:
        UserError: It has one. Settings, such as a rate, are none.
    """
    for name, value in call.given.items():
        is_setting = value is None or isinstance(value, (bool, int, float, str))
        if is_setting or 'mask' not in str(name).lower():
            continue
        if name in MASKS or name in told or _is_of_pairs(call, name, value):
            continue
        if name in _OF_ANOTHER_SEQUENCE and _known(call):
            continue
        raise UserError(
            f"{call.signature.kind} is given '{name}' {_describe(value)}, and lm4ve does "
            f'not know whether it marks padding. {advice_for(name)}'
        )


def _describe(value: Any) -> object:
    """Return the shape of a tensor, or the name of another type."""
    shape = getattr(value, 'shape', None)
    if shape is None:
        return type(value).__name__
    return list(shape)


def check_told(
    mask: Mapping[str, str] | None, signatures: Sequence[Signature]
) -> dict[str, str]:
    """Check the argument ``mask``, by which a user declares how a host's masks read.

    Args:
        mask (Mapping, optional): Name of an argument -> how it reads.
        signatures (Sequence[Signature]): The signatures of the encoder, of the modules
            that hold the place, and of the place itself.

    Returns:
        dict[str, str]: ``mask``, empty without one.

    Raises:
        UserError: There is no such reading, or no module takes such an argument.
    """
    if mask is None:
        return {}
    check('mask', mask, kind=Mapping)
    known: set[str] = set()
    for signature in signatures:
        known.update(signature.names)
    # A single argument of the encoder may be a batch of all its inputs.
    takes_batch = len(signatures[0].names) == 1
    takes_any = takes_batch or any(s.takes_others for s in signatures)
    for name, reading in mask.items():
        check(f'mask[{name!r}]', reading, choices=READINGS)
        if name in known:
            continue
        text = (
            f"mask names '{name}', which neither the place nor a module around it "
            f'takes.{did_you_mean(name, sorted(known))} '
            f'Fix: one of {listing(sorted(known), 12)}'
        )
        if not takes_any:
            raise UserError(f'{text}.')
        print_log(
            f'{text}, or a name in the **kwargs or the batch of a call.',
            logger='current',
            level=logging.WARNING,
        )
    return dict(mask)
