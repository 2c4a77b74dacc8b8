"""The padding mask of a host, as the block inside of it needs it: bool ``[B, N]``.

A host tells its own layers which tokens are padding, by an argument of its forward
call. A block that a hook puts between them sees none of those arguments, and would
attend to padding. So the calls of the modules around the block's place are noted while
they run, and the mask is found in them by its name: first among the arguments of the
place itself, then of the module around it, and so on. A layer knows best: what it is
given has the length of what it returns.
"""

import inspect
import threading
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lm4ve.errors import UserError, check, did_you_mean, listing
from lm4ve.necks import mask_names as names

#: A score with so much added to it has no weight left.
_NO_WEIGHT = -1000.0
_ADVICE = (
    "Fix: mask=dict({name}='keep') (1 is kept), 'padding' (True is padding), 'additive' (-inf is "
    "padding), 'pixels' (of [B, H, W]) or 'ignore' (no padding)."
)

#: The calls that run now, each thread's own: DataParallel runs replicas in threads.
_running = threading.local()


class Call(NamedTuple):
    """A call of a module that runs now.

    Attributes:
        key: The key of the hook that noted it.
        signature (Signature): The signature of the module.
        given (dict): The arguments by name.
    """

    key: Any
    signature: 'Signature'
    given: dict[str, Any]


def open_call(call: Call) -> None:
    """Note a call that begins."""
    calls = getattr(_running, 'calls', None)
    if calls is None:
        calls = _running.calls = []
    calls.append(call)


def close_call(key: Any, signature: 'Signature') -> None:
    """Forget a call that has ended; there may be none, if another hook raised before ours."""
    calls = getattr(_running, 'calls', None)
    if calls and calls[-1].key is key and calls[-1].signature is signature:
        calls.pop()


def running_calls(key: Any) -> list[Call]:
    """Return the calls of one hook that run now, the innermost first."""
    calls = getattr(_running, 'calls', None)
    if calls is None:
        return []
    found = [call for call in calls if call.key is key]
    found.reverse()
    return found


class Signature:
    """What a module's arguments are named, and how those that may be masks read.

    Args:
        module (nn.Module): The module.
        mask (Mapping): What the user says: name -> one of ``mask_names.READINGS``.
    """

    def __init__(self, module: nn.Module, mask: Mapping[str, str]) -> None:
        self.kind = type(module).__name__
        #: Names of positional arguments, in order.
        self.positional: list[str] = []
        self.names: set[str] = set()
        self.takes_others = False
        for parameter in _parameters_of(module):
            if parameter.kind is parameter.VAR_KEYWORD:
                self.takes_others = True
            elif parameter.kind is not parameter.VAR_POSITIONAL:
                self.names.add(parameter.name)
            if parameter.kind in (
                parameter.POSITIONAL_ONLY,
                parameter.POSITIONAL_OR_KEYWORD,
            ):
                self.positional.append(parameter.name)
        self._rows: dict[str, dict[int, str]] = {
            **names.MASKS,
            **_exceptions_of(module),
        }
        for name, reading in mask.items():
            self._rows[name] = {names.ANY: reading}
        #: Names that tell of padding: those of the user, and those of the table.
        self._own = [n for n in mask if _tells_of_padding(self._rows[n])]
        self._known = [
            n for n in self._rows if n not in mask and _tells_of_padding(self._rows[n])
        ]

    @property
    def may_be_told(self) -> bool:
        """Whether a call of the module may have a mask among its arguments."""
        return self.takes_others or any(
            n in self._rows or 'mask' in n for n in self.names
        )

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return a call's arguments by name, and the entries of those that are dicts.

        Those of ``*args`` have no name.
        """
        given = {**dict(zip(self.positional, args, strict=False)), **kwargs}
        for value in list(given.values()):
            if isinstance(value, Mapping):
                given = {**value, **given}
        return given

    @property
    def may_be_a_batch(self) -> bool:
        """Whether the module has one argument, which may be a dict of all others."""
        return len(self.names) == 1

    def masks(self, given: Mapping[str, Any], own: bool) -> list[str]:
        """Return the names of arguments that tell of padding, whether they are given or not.

        Args:
            given (Mapping): Arguments by name.
            own (bool): Return those that the user named at ``mask=``, else the table's.
        """
        candidates = self._own if own else self._known
        return [n for n in candidates if n in self.names or n in given]

    def refuse_unreadable(self, given: Mapping[str, Any]) -> None:
        """Refuse a call with a mask of which nobody has said what it means, or packed samples.

        Raises:
            UserError: An argument's name has 'mask' and is named nowhere; or it packs
                samples.
        """
        for name, value in given.items():
            if value is None:
                continue
            is_setting = isinstance(value, (bool, int, float, str))
            if 'mask' in str(name) and name not in self._rows and not is_setting:
                raise UserError(
                    f"{self.kind} is given '{name}', and lm4ve does not know whether it marks "
                    f'padding. {_ADVICE.format(name=name)}'
                )
            row = self._rows.get(name, {})
            if set(row.values()) == {names.IGNORE}:
                self.reading(name, value)  # of another shape it could mark padding
            if row.get(names.ANY) == names.PACKED:
                raise UserError(
                    f"{self.kind} is given '{name}': it packs several samples into one sequence, "
                    'which a block would mix. Fix: padded batches (attn_implementation).'
                )

    def reading(self, name: str, value: Any) -> str:
        """Return how an argument reads.

        Raises:
            UserError: It is no tensor, or of a shape that the table does not have.
        """
        row = self._rows[name]
        if names.ANY in row:
            reading = row[names.ANY]
        else:
            reading = row.get(value.dim(), '') if isinstance(value, Tensor) else ''
        if reading == names.IGNORE:
            return reading
        if (
            not reading
            or not isinstance(value, Tensor)
            or self._is_sum(name, value, reading)
        ):
            shape = getattr(value, 'shape', None)
            found = type(value).__name__ if shape is None else list(shape)
            raise UserError(
                f"{self.kind} is given '{name}' {found}, which lm4ve cannot read. "
                + _ADVICE.format(name=name)
            )
        return reading

    def _is_sum(self, name: str, value: Tensor, reading: str) -> bool:
        """Whether 1 is said to be kept of what is added to scores."""
        is_pairs = value.dim() > names.TOKENS and reading == names.KEEP
        return name in self._own and is_pairs and value.is_floating_point()


def _tells_of_padding(row: Mapping[int, str]) -> bool:
    """Whether an argument marks padding, in one of its shapes."""
    return any(reading not in (names.IGNORE, names.PACKED) for reading in row.values())


def _parameters_of(module: nn.Module) -> list[inspect.Parameter]:
    """Return a module's parameters; none where Python cannot see them (TorchScript)."""
    try:
        return [*inspect.signature(module.forward).parameters.values()]
    except (TypeError, ValueError):
        return []


def _exceptions_of(module: nn.Module) -> dict[str, dict[int, str]]:
    """Return the rows of a module's class, or of what it inherits from."""
    for cls in type(module).__mro__:
        for start, rows in names.EXCEPTIONS.items():
            if f'{cls.__module__}.{cls.__qualname__}'.startswith(start):
                return rows
    return {}


def check_mask(
    mask: Mapping[str, str] | None, signatures: list[Signature]
) -> dict[str, str]:
    """Check what a user says of a host's masks.

    Args:
        mask (Mapping, optional): Name of an argument -> how it reads.
        signatures (list[Signature]): Of the encoder, the modules within it around the
            place, and the place.

    Returns:
        dict: ``mask``.

    Raises:
        UserError: There is no such reading, or no module takes such an argument.
    """
    if mask is None:
        return {}
    check('mask', mask, kind=Mapping)
    known = sorted(set().union(*(s.names for s in signatures)))
    is_open = signatures[0].may_be_a_batch or any(s.takes_others for s in signatures)
    for name, reading in mask.items():
        check(f'mask[{name!r}]', reading, choices=names.READINGS)
        if name not in known and not is_open:
            raise UserError(
                f"mask names '{name}', which neither the place nor a module around it takes."
                f'{did_you_mean(name, known)} Fix: one of {listing(known, 12)}.'
            )
    return dict(mask)


def find_mask(calls: list[Call]) -> tuple[Call, str | None] | None:
    """Find the argument that tells of padding at a place.

    What the user named comes first. Then the innermost call decides that has an
    argument of the table: without a value there is no padding, whatever stands further
    out, which may belong to another sequence (a decoder's layer is not padded as its
    encoder is).

    Args:
        calls (list[Call]): The place's own call, then those around it, the innermost
            first.

    Returns:
        tuple[Call, str | None] | None: The call that decides and the argument's name,
        or None for
        it if there is no padding. None: no call has such an argument.

    Raises:
        UserError: A mask is unknown, or it is not clear which one holds.
    """
    for call in calls:
        call.signature.refuse_unreadable(call.given)
    # An argument of the user's is the host's, whose layers may have another of the same
    # name.
    for call in reversed(calls):
        found = _one_of(call, call.signature.masks(call.given, own=True))
        if found:
            return call, found
    for call in calls:
        known = call.signature.masks(call.given, own=False)
        found = _one_of(call, known)
        if found:
            _refuse_two_inputs(call, found)
            return call, found
        if known:
            return call, None
    return None


def _one_of(call: Call, candidates: list[str]) -> str | None:
    """Return the one argument that is given and tells of padding, if there is one.

    Raises:
        UserError: There are two.
    """
    found = []
    for name in candidates:
        value = call.given.get(name)
        if value is not None and call.signature.reading(name, value) != names.IGNORE:
            found.append(name)
    if len(found) > 1:
        raise UserError(
            f'{call.signature.kind} is given {" and ".join(found)}, and either could be the mask '
            f'of the place. {_ADVICE.format(name=found[0])}'
        )
    return found[0] if found else None


def _refuse_two_inputs(call: Call, name: str) -> None:
    """Refuse the mask of a module that reads two sequences.

    Raises:
        UserError: It could be the other one's.
    """
    inputs = [n for n in names.INPUTS if call.given.get(n) is not None]
    if len(inputs) > 1:
        raise UserError(
            f'{call.signature.kind} is given {" and ".join(inputs)}, and {name} is the mask of one '
            f'of them. {_ADVICE.format(name=name)}'
        )


def padding_of(call: Call, name: str, x: Tensor, layout: str, extra: int) -> Tensor:
    """Read a mask as the padding of a place's tokens.

    Args:
        call (Call): Who was given it.
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
    grid = [
        size for size, letter in zip(x.shape, layout, strict=True) if letter not in 'BC'
    ]
    tokens = 1
    for size in grid:
        tokens *= size
    reading = call.signature.reading(name, value)
    if reading == names.PIXELS:
        padding = _padding_of_pixels(value, grid)
    else:
        padding = _padding_of_tokens(value, reading)
    if padding is not None and padding.shape[0] == 1 and samples > 1:
        padding = padding.expand(samples, -1)
    if padding is not None and extra and padding.shape[1] + extra == tokens:
        padding = F.pad(padding, (extra, 0), value=False)  # class tokens are no padding
    if padding is None or list(padding.shape) != [samples, tokens]:
        raise UserError(
            f"{call.signature.kind} is given '{name}' {list(value.shape)}, but the block's place "
            f'has {samples} samples of {tokens} tokens ({list(x.shape)}): the host leaves tokens '
            'out, adds or packs some. Fix: a place whose own call has the mask, num_extra_tokens '
            f"for class tokens in front, or mask=dict({name}='ignore') if nothing is padded."
        )
    return padding.to(x.device)


def _padding_of_tokens(mask: Tensor, reading: str) -> Tensor | None:
    """Read a mask of tokens or of pairs: bool ``[B, N]``, True = padding; None: another shape."""
    if reading == names.ADDITIVE or (
        reading == names.PADDING and mask.is_floating_point()
    ):
        padding = mask < _NO_WEIGHT if mask.is_floating_point() else mask == 0
    elif reading == names.PADDING:
        padding = mask != 0
    else:
        padding = mask == 0
    if padding.dim() == 4:
        padding = padding.flatten(1, 2)
    if padding.dim() == 3:  # which no query reads
        padding = padding.all(dim=1)
    return padding if padding.dim() == 2 else None


def _padding_of_pixels(mask: Tensor, grid: list[int]) -> Tensor | None:
    """Read a mask ``[B, H, W]`` at a map's positions, as hosts do; None: another shape."""
    if mask.dim() == 4 and mask.shape[1] == 1:
        mask = mask[:, 0]
    if mask.dim() != 3:
        return None
    kept = mask != 0
    if len(grid) == 2:
        kept = F.interpolate(kept[:, None].float(), size=grid)[:, 0] > 0
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
