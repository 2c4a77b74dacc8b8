"""What the arguments of a host's module mean, as far as they may mark padding."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from lm4ve.errors import UserError, check, did_you_mean, listing
from lm4ve.necks import mask_names

_ADVICE = (
    "Fix: mask=dict({name}='keep') (1 is kept), 'padding' (True is padding), "
    "'additive' (-inf is padding), 'pixels' (of [B, H, W]) or 'ignore' (no padding)."
)


def advice_for(name: str) -> str:
    """Return the advice of a message: how to declare what the argument ``name`` means."""
    return _ADVICE.format(name=name)


class Signature:
    """The names of a module's arguments, and how those that may be masks read.

    Args:
        kind (str): The name of the module's class, for messages.
        positional (Sequence[str]): Names of positional arguments, in order.
        names (Set[str]): Names of all arguments but ``*args`` and ``**kwargs``.
        takes_others (bool): Whether there is a ``**kwargs``.
        rows (Mapping): Name of an argument -> number of dimensions -> reading, as in
            ``mask_names.MASKS``.
        own (Sequence[str]): Names in ``rows`` that the user has declared at ``mask=``.
    """

    def __init__(
        self,
        kind: str,
        positional: Sequence[str],
        names: set[str],
        takes_others: bool,
        rows: Mapping[str, Mapping[int, str]],
        own: Sequence[str],
    ) -> None:
        self.kind = kind
        self.positional = positional
        self.names = names
        self.takes_others = takes_others
        self.rows = rows
        self.own = own
        marking = [name for name in rows if _marks_padding(rows[name])]
        # A mask that the user has declared comes before those known by their names.
        self._own_masks = [name for name in own if name in marking]
        self._known_masks = [name for name in marking if name not in own]

    @property
    def may_get_mask(self) -> bool:
        """True if a call of the module may have a mask among its arguments."""
        if self.takes_others:
            return True
        return any(name in self.rows or 'mask' in name for name in self.names)

    @property
    def may_be_a_batch(self) -> bool:
        """True if the module has a single argument, which may be a dict of all inputs."""
        return len(self.names) == 1

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return a call's arguments by name, and the entries of those that are dicts.

        Those of ``*args`` have no name.
        """
        given = dict(zip(self.positional, args, strict=False))
        given.update(kwargs)
        for value in list(given.values()):
            if isinstance(value, Mapping):
                given = {**value, **given}
        return given

    def masks(self, given: Mapping[str, Any], own: bool) -> list[str]:
        """Return the names of arguments that mark padding, whether they are given or not.

        Args:
            given (Mapping): Arguments by name.
            own (bool): Return those that the user named at ``mask=``, else the table's.
        """
        candidates = self._own_masks if own else self._known_masks
        return [name for name in candidates if name in self.names or name in given]

    def refuse_unreadable(self, given: Mapping[str, Any]) -> None:
        """Refuse a call with a mask of unknown meaning, or with packed samples.

        Args:
            given (Mapping): Arguments by name.

        Raises:
            UserError: An argument's name has 'mask' and is named nowhere; or it packs
                samples.
        """
        for name, value in given.items():
            if value is None:
                continue
            if name not in self.rows:
                self._refuse_unknown(name, value)
                continue
            row = self.rows[name]
            if set(row.values()) == {mask_names.IGNORE}:
                self.reading(name, value)  # of another shape it could mark padding
            if row.get(mask_names.ANY) == mask_names.PACKED:
                raise UserError(
                    f"{self.kind} is given '{name}': it packs several samples into one "
                    'sequence, which a block would mix. Fix: padded batches '
                    '(attn_implementation).'
                )

    def _refuse_unknown(self, name: str, value: Any) -> None:
        """Refuse an argument that is named like a mask, but not one that is a setting."""
        is_setting = isinstance(value, (bool, int, float, str))
        if 'mask' in str(name) and not is_setting:
            raise UserError(
                f"{self.kind} is given '{name}', and lm4ve does not know whether it "
                f'marks padding. {advice_for(name)}'
            )

    def reading(self, name: str, value: Any) -> str:
        """Return how the value of an argument reads, one of ``mask_names.READINGS``.

        Args:
            name (str): The argument, which has a row.
            value: Its value in a call.

        Raises:
            UserError: It is no tensor, or of a shape that the table does not have.
        """
        row = self.rows[name]
        is_tensor = isinstance(value, Tensor)
        reading = None
        if mask_names.ANY in row:
            reading = row[mask_names.ANY]
        elif is_tensor:
            reading = row.get(value.dim())
        if reading == mask_names.IGNORE:
            return reading
        if reading is None or not is_tensor or self._is_sum(name, value, reading):
            shape = getattr(value, 'shape', None)
            description: object = type(value).__name__
            if shape is not None:
                description = list(shape)
            raise UserError(
                f"{self.kind} is given '{name}' {description}, which lm4ve cannot read. "
                + advice_for(name)
            )
        return reading

    def _is_sum(self, name: str, value: Tensor, reading: str) -> bool:
        """Return whether a mask declared as 'keep' looks like one that is added to scores.

        That is a mask of pairs in floating point, of which 'keep' would read every 0 as
        padding. Only what the user declared at ``mask=`` is suspected.
        """
        is_pairs = value.dim() > mask_names.TOKENS and reading == mask_names.KEEP
        return name in self.own and is_pairs and value.is_floating_point()


def _marks_padding(row: Mapping[int, str]) -> bool:
    """Return whether an argument with this row marks padding, in one of its shapes."""
    return any(
        reading not in (mask_names.IGNORE, mask_names.PACKED)
        for reading in row.values()
    )


def signature_of(module: nn.Module, mask: Mapping[str, str]) -> Signature:
    """Return the signature of a module.

    Args:
        module (nn.Module): The module.
        mask (Mapping): What the user says: name -> one of ``mask_names.READINGS``.
    """
    positional = []
    named = set()
    takes_others = False
    for parameter in _parameters_of(module):
        if parameter.kind is parameter.VAR_KEYWORD:
            takes_others = True
        elif parameter.kind is not parameter.VAR_POSITIONAL:
            named.add(parameter.name)
            if parameter.kind is not parameter.KEYWORD_ONLY:
                positional.append(parameter.name)
    rows: dict[str, Mapping[int, str]] = {**mask_names.MASKS, **_exceptions_of(module)}
    for name, reading in mask.items():
        rows[name] = {mask_names.ANY: reading}
    kind = type(module).__name__
    return Signature(kind, positional, named, takes_others, rows, own=list(mask))


def _parameters_of(module: nn.Module) -> list[inspect.Parameter]:
    """Return a module's parameters; none where Python cannot see them (TorchScript)."""
    try:
        return list(inspect.signature(module.forward).parameters.values())
    except (TypeError, ValueError):
        return []


def _exceptions_of(module: nn.Module) -> dict[str, dict[int, str]]:
    """Return the rows of a module's class, or of what it inherits from."""
    for cls in type(module).__mro__:
        path = f'{cls.__module__}.{cls.__qualname__}'
        for start, rows in mask_names.EXCEPTIONS.items():
            if path.startswith(start):
                return rows
    return {}


def check_mask(
    mask: Mapping[str, str] | None, modules: Sequence[nn.Module]
) -> dict[str, str]:
    """Check the argument ``mask``, by which a user declares how a host's masks read.

    Args:
        mask (Mapping, optional): Name of an argument -> how it reads.
        modules (Sequence[nn.Module]): The encoder, the modules within it around the
            place, and the place.

    Returns:
        dict[str, str]: ``mask``, empty without one.

    Raises:
        UserError: There is no such reading, or no module takes such an argument.
    """
    if mask is None:
        return {}
    check('mask', mask, kind=Mapping)
    signatures = [signature_of(module, {}) for module in modules]
    known: set[str] = set()
    for signature in signatures:
        known.update(signature.names)
    takes_any = signatures[0].may_be_a_batch or any(s.takes_others for s in signatures)
    for name, reading in mask.items():
        check(f'mask[{name!r}]', reading, choices=mask_names.READINGS)
        if name not in known and not takes_any:
            raise UserError(
                f"mask names '{name}', which neither the place nor a module around it "
                f'takes.{did_you_mean(name, sorted(known))} '
                f'Fix: one of {listing(sorted(known), 12)}.'
            )
    return dict(mask)
