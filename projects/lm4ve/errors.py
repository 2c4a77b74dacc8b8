"""The errors a user can mend, the check of a field, and the words that messages share.

The commands print these errors as one line, and keep the traceback for the log file.
All of them take a single string, because MMEngine's registry re-raises a constructor's
error as ``type(e)(message)``.
"""

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from difflib import SequenceMatcher, get_close_matches
from numbers import Real
from typing import Any, TypeVar

Built = TypeVar('Built')


class UserError(ValueError):
    """An error that the user can mend: in a config, in a file or on the machine."""


class CheckpointError(UserError):
    """A checkpoint is missing, damaged, unsafe, or does not fit the config."""


class UnsupportedModelError(UserError):
    """A language model whose layers cannot serve as a visual encoder layer here."""


class DamagedFilesError(UserError):
    """Files of a data set are damaged, of which none may be replaced or left out."""


class TooLargeError(UserError):
    """A file is larger than a field allows: neither damaged, nor to be left out."""


class StorageError(Exception):
    """Storage did not give a file, of whose content nothing is known.

    It may pass by itself, so that the commands exit with 1 and a launcher tries again. It
    is no ``OSError``: readers take many of these for damage of the file.
    """


def check(
    field: str,
    value: Any,
    *,
    choices: Collection[Any] | None = None,
    kind: type | tuple[type, ...] | None = None,
    above: float | None = None,
    least: float | None = None,
    most: float | None = None,
) -> None:
    """Refuse a value that a field of a config, or an argument, cannot have.

    Args:
        field (str): Its name as the user writes it, for example 'neck.residual'.
        value: The value to check.
        choices (Collection, optional): The values that are allowed.
        kind (type | tuple[type], optional): The types that are allowed. True and False
            are allowed only by bool, not by int.
        above (float, optional): A bound that a number must exceed.
        least, most (float, optional): Bounds that a number may reach.

    Raises:
        UserError: The message names the field, the value and what it must be.
    """
    if choices is not None:
        _check_choice(field, value, choices)
    kinds = _kinds_of(kind)
    is_of_kind = _is_of_kind(value, kinds)
    is_within = True
    # NumPy's numbers are Real, but most of them neither int nor float.
    is_number = isinstance(value, Real)
    if is_number:
        # Written so that NaN, which compares as false, is refused.
        is_within = (
            (above is None or value > above)
            and (least is None or value >= least)
            and (most is None or value <= most)
        )
    if is_of_kind and is_within:
        return
    wants = []
    if kinds:
        names = ['None' if k is type(None) else k.__name__ for k in kinds]
        wants.append(f'of type {" or ".join(names)}')
    if above is not None:
        wants.append(f'above {above}')
    if least is not None:
        wants.append(f'at least {least}')
    if most is not None:
        wants.append(f'at most {most}')
    raise UserError(f'{field}={brief(repr(value))} must be {" and ".join(wants)}.')


def _check_choice(field: str, value: Any, choices: Collection[Any]) -> None:
    """Refuse a value that is none of the allowed ones.

    Raises:
        UserError: It lists the choices.
    """
    for choice in choices:
        if value is choice or value == choice:
            return
    advice = ''
    if isinstance(value, str):
        advice = did_you_mean(value, choices)
    raise UserError(
        f'{field}={brief(repr(value))} must be one of {", ".join(map(str, choices))}.{advice}'
    )


def _kinds_of(kind: type | tuple[type, ...] | None) -> tuple[type, ...]:
    """Return the allowed types as a tuple, which is empty if any type is allowed."""
    if kind is None:
        return ()
    if isinstance(kind, tuple):
        return kind
    return (kind,)


def _is_of_kind(value: Any, kinds: tuple[type, ...]) -> bool:
    """Return whether a value has one of the allowed types; a bool does not count as an int."""
    if not kinds:
        return True
    if isinstance(value, bool):
        return bool in kinds
    return isinstance(value, kinds)


def require(condition: object, sentence: str) -> None:
    """Raise an error with a given sentence unless a condition is true.

    For conditions that :func:`check` cannot express, such as two fields that exclude
    each other.

    Args:
        condition: Its truth value counts.
        sentence (str): The message. It names the field or file, its value, and the fix.

    Raises:
        UserError: The condition is false.
    """
    if not condition:
        raise UserError(sentence)


def build_from(
    kind: Callable[..., Built], fields: Any, field: str, **defaults: Any
) -> Built:
    """Call a class or function with the entries of a dict that a user wrote.

    Args:
        kind (Callable): The class or function. Entries become its keyword arguments.
        fields (dict): The entries.
        field (str): The dict's name as the user writes it, for example 'neck.branch';
            '' for the top level of a file.
        **defaults: Further arguments, which entries replace.

    Returns:
        What ``kind`` returns.

    Raises:
        UserError: It is no dict, or has an entry that ``kind`` does not take, or lacks
            one.
    """
    check(field, fields, kind=dict)
    refuse_unknown(kind, fields, field)
    arguments = {**defaults, **fields}
    for name, parameter in _named_parameters(kind).items():
        if parameter.default is not parameter.empty or name in arguments:
            continue
        if not field:
            raise UserError(f'{name} is missing. Fix: {name}=...')
        raise UserError(f'{field}.{name} is missing. Fix: {field}=dict({name}=...).')
    return kind(**arguments)


def refuse_unknown(
    kind: Callable[..., Any], fields: Mapping[str, Any], field: str
) -> None:
    """Refuse an entry of a dict that a class or function does not take.

    Args:
        kind (Callable): See :func:`build_from`.
        fields (Mapping): See there.
        field (str): See there.

    Raises:
        UserError: It names the first such entry, and one that is like it.
    """
    parameters = inspect.signature(kind).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    known = list(_named_parameters(kind))
    # What replaces an argument that is gone, the constructor itself says.
    removed = getattr(kind.__init__, 'removed', ())
    for name in fields:
        if name not in known and name not in removed:
            path = f'{field}.{name}' if field else name
            advice = did_you_mean(str(name), known) or f' Known: {listing(known, 20)}.'
            raise UserError(f'{path} is not a known field.{advice}')


def _named_parameters(kind: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the parameters of a class or function that an entry of a dict can give."""
    named = {}
    for name, parameter in inspect.signature(kind).parameters.items():
        if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            named[name] = parameter
    return named


def did_you_mean(word: str, known: Iterable[Any]) -> str:
    """Return ' Did you mean ...?' with up to three known words like a word, or ''."""
    words = [name for name in known if isinstance(name, str)]
    return suggest(get_close_matches(word, words, 3, 0.6))


def suggest(names: Sequence[str]) -> str:
    """Return ' Did you mean ...?' with some names, or '' if there are none."""
    if not names:
        return ''
    return f' Did you mean {" or ".join(map(repr, names))}?'


def listing(names: Sequence[object], limit: int = 5) -> str:
    """Join the first names with commas for a message, and add how many more there are."""
    text = ', '.join(map(str, names[:limit]))
    if len(names) <= limit:
        return text
    return f'{text} and {len(names) - limit} more'


def closest(word: str, names: Iterable[str], limit: int = 8) -> str:
    """Join the names that are most like a word for a message, numbered ones as one group.

    ``layers.0.attn`` to ``layers.11.attn`` become ``layers.{0..11}.attn``.

    Args:
        word (str): A word that is none of the names.
        names (Iterable[str]): Names of parts with dots between them.
        limit (int): How many groups are shown. The number of names in the others is
            added.
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_pattern(name), []).append(name)
    wanted = _pattern(word)

    def unlikeness(pattern: str) -> float:
        return -SequenceMatcher(None, wanted, pattern).ratio()

    order = sorted(groups, key=unlikeness)
    text = ', '.join(_group(pattern, groups[pattern]) for pattern in order[:limit])
    left_out = sum(len(groups[pattern]) for pattern in order[limit:])
    if not left_out:
        return text
    return f'{text} and {left_out} more'


def _pattern(name: str) -> str:
    """Return a dotted name with a star in the place of each part that is a number."""
    return '.'.join('*' if part.isdecimal() else part for part in name.split('.'))


def _group(pattern: str, names: Sequence[str]) -> str:
    """Describe names of one pattern: by the first and the last number of each place."""
    if len(names) == 1:
        return names[0]
    columns = list(zip(*(name.split('.') for name in names), strict=True))
    parts = []
    for part, column in zip(pattern.split('.'), columns, strict=True):
        if part != '*' or len({*column}) == 1:
            parts.append(column[0])
            continue
        numbers = sorted(int(number) for number in {*column})
        parts.append(f'{{{numbers[0]}..{numbers[-1]}}}')
    return '.'.join(parts)


def brief(value: object, limit: int = 60) -> str:
    """Return a value as printable text for a message, cut after ``limit`` characters."""
    text = str(value)
    if not text.isprintable():
        text = repr(text)[1:-1]
    if len(text) <= limit:
        return text
    return f'{text[:limit]}...'


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text that is not blank, else the error's class."""
    for line in str(error).split('\n'):
        if line.strip():
            return line.strip()
    return type(error).__name__
