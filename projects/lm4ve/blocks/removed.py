"""What blocks and necks no longer have: one table, and the one line that says so.

A config, a call or a checkpoint of an older version may name a field that is gone, or a
value of a field. A bare ``TypeError`` would not say what does its work now.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar

from lm4ve.errors import CheckpointError, UserError, brief

Constructor = TypeVar('Constructor', bound=Callable[..., None])


@dataclass(frozen=True)
class Removed:
    """A field that is gone, or a value of it.

    Attributes:
        field (str): 'block.' or 'neck.' and its name.
        value (str | None): The value that is gone; None: the whole field.
        since (str): The version of lm4ve without it.
        instead (str): What to write instead, the rest of a sentence after 'Fix:'.
    """

    field: str
    value: str | None
    since: str
    instead: str


#: In the place of queries.
_PART = "neck.out_type='cls_token' and a part (docs/extend/architecture.md)"

REMOVED = (
    Removed('block.dtype', 'int8', '0.1.0', "block.dtype='bfloat16'"),
    Removed('block.dtype', 'float8', '0.1.0', "block.dtype='bfloat16'"),
    Removed('block.rotary', 'one-frequency', '0.1.0', 'block.rotary=True'),
    Removed(
        'neck.compile', None, '0.1.0', 'compile=True of the config, or model.compile()'
    ),
    Removed(
        'neck.train_queries',
        None,
        '0.1.0',
        'leave it out, every step computes all tokens',
    ),
    Removed('neck.queries', None, '0.1.0', _PART),
    Removed('neck.out_type', 'query', '0.1.0', _PART),
)


def refuses_removed(owner: str) -> Callable[[Constructor], Constructor]:
    """Let a constructor refuse, in one line, arguments that it no longer has.

    Args:
        owner (str): 'block' or 'neck'.
    """

    def decorate(constructor: Constructor) -> Constructor:
        @wraps(constructor)
        def refusing(self: Any, *args: Any, **arguments: Any) -> None:
            constructor(self, *args, **without_removed(owner, arguments))

        # Checks of names leave these to the constructor.
        refusing.removed = removed_names(owner)  # type: ignore[attr-defined]
        return refusing  # type: ignore[return-value]

    return decorate


def removed_names(owner: str) -> tuple[str, ...]:
    """Return the names of the fields of a block or a neck that are gone as a whole."""
    names = []
    for entry in REMOVED:
        entry_owner, _, name = entry.field.partition('.')
        if entry_owner == owner and entry.value is None:
            names.append(name)
    return tuple(names)


def without_removed(owner: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments without removed ones that ask for nothing, such as ``compile=False``.

    Args:
        owner (str): 'block' or 'neck'.
        arguments (Mapping): Arguments by name.

    Raises:
        UserError: An argument, or its value, is gone. The line names what replaces it.
    """
    kept = dict(arguments)
    for name, value in arguments.items():
        field = f'{owner}.{name}'
        entry = _find(field, value)
        if entry is None:
            continue
        if _asks_for_nothing(value):
            del kept[name]
            continue
        raise UserError(
            f'{field}={brief(repr(value))} is not in lm4ve since {entry.since}. '
            f'Fix: {entry.instead}.'
        )
    return kept


def without_removed_settings(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of a checkpoint without removed fields that it did not use.

    Args:
        record (Mapping): Its settings by the names of their fields.

    Raises:
        CheckpointError: Its block or neck had what is gone. The line names what replaces
            it.
    """
    kept = dict(record)
    for name, value in record.items():
        entry = _find(f'block.{name}', value) or _find(f'neck.{name}', value)
        if entry is None:
            continue
        if not _asks_for_nothing(value):
            raise CheckpointError(
                f'The checkpoint was made with {entry.field}={brief(repr(value))}, which is '
                f'not in lm4ve since {entry.since}. Fix: train again ({entry.instead}).'
            )
        del kept[name]
    return kept


def _asks_for_nothing(value: Any) -> bool:
    """Return whether a removed field has the value that stands for 'without it'."""
    return value in (None, False, 'none')


def _find(field: str, value: Any) -> Removed | None:
    """Return the entry of a field with a value; None if it is still there."""
    for entry in REMOVED:
        if entry.field != field:
            continue
        is_this_value = isinstance(value, str) and value == entry.value
        if entry.value is None or is_this_value:
            return entry
    return None
