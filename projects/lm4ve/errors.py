"""The errors a user can mend, the check of a field, and the words that messages share.

The commands print these errors as one line, and keep the traceback for the log file.
All of them take a single string, because MMEngine's registry re-raises a constructor's
error as ``type(e)(message)``.
"""

import inspect
from collections.abc import Callable, Collection, Iterable, Sequence
from difflib import SequenceMatcher, get_close_matches
from typing import Any, TypeVar

Built = TypeVar('Built')


class UserError(ValueError):
    """Something in a config, a file or on the machine needs the user's hand."""


class CheckpointError(UserError):
    """A checkpoint is missing, damaged, unsafe or not what the config says."""


class UnsupportedModelError(UserError):
    """A language model whose layers cannot serve as a visual encoder layer here."""


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
    """Refuse a field of a config or an argument whose value it cannot have.

    Args:
        field (str): Its name as the user writes it, for example 'neck.residual'.
        value: What was given.
        choices (Collection, optional): The values that there are.
        kind (type | tuple[type], optional): The types that it may have. A bool counts
            as an int only where bool is named.
        above (float, optional): A bound that the number must exceed.
        least, most (float, optional): Bounds that the number may reach.

    Raises:
        UserError: The message names the field, the value and what it must be.
    """
    if choices is not None and not any(value is c or value == c for c in choices):
        advice = did_you_mean(value, choices) if isinstance(value, str) else ''
        raise UserError(
            f'{field}={brief(repr(value))} must be one of {", ".join(map(str, choices))}.{advice}'
        )
    wants = []
    kinds = kind if isinstance(kind, tuple) else (kind,) if kind is not None else ()
    wrong = bool(kinds) and not isinstance(value, kinds)
    if kinds:
        wrong |= isinstance(value, bool) and bool not in kinds
        names = ('None' if k is type(None) else k.__name__ for k in kinds)
        wants.append('of type ' + ' or '.join(names))
    bounds = ((above, 'above'), (least, 'at least'), (most, 'at most'))
    wants += [f'{word} {bound}' for bound, word in bounds if bound is not None]
    if not wrong and isinstance(value, (int, float)):
        wrong = not (
            (above is None or value > above)
            and (least is None or value >= least)
            and (most is None or value <= most)
        )
    if wrong:
        raise UserError(f'{field}={brief(repr(value))} must be {" and ".join(wants)}.')


def require(condition: object, sentence: str) -> None:
    """Refuse what a sentence describes unless a condition holds.

    The sister of :func:`check` for what one value alone cannot say, such as two fields
    that do not go together.

    Args:
        condition: What has to be true.
        sentence (str): It names the field or file, what was found, and the fix.

    Raises:
        UserError: The condition does not hold; the message is the sentence.
    """
    if not condition:
        raise UserError(sentence)


def build_from(
    kind: Callable[..., Built], fields: Any, field: str, **defaults: Any
) -> Built:
    """Call a class or function with the entries of a dict that a user wrote.

    Args:
        kind (Callable): It takes the entries as keyword arguments.
        fields (dict): The entries.
        field (str): The dict's name as the user writes it, for example 'neck.queries';
            '' for the top level of a file.
        **defaults: Further arguments, which entries replace.

    Returns:
        What ``kind`` returns.

    Raises:
        UserError: It is no dict, or has an entry that ``kind`` does not take, or lacks
            one.
    """
    check(field, fields, kind=dict)
    parameters = inspect.signature(kind).parameters.values()
    named = {
        p.name: p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    }
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    arguments = {**defaults, **fields}
    for name in fields:
        if name not in named and not takes_any:
            close = (
                did_you_mean(str(name), named) or f' Known: {listing([*named], 20)}.'
            )
            path = f'{field}.{name}' if field else name
            raise UserError(f'{path} is not a known field.{close}')
    for name, parameter in named.items():
        if parameter.default is parameter.empty and name not in arguments:
            if not field:
                raise UserError(f'{name} is missing. Fix: {name}=...')
            raise UserError(
                f'{field}.{name} is missing. Fix: {field}=dict({name}=...).'
            )
    return kind(**arguments)


def did_you_mean(word: str, known: Iterable[Any]) -> str:
    """Return " Did you mean ...?" with the known words closest to one, or nothing."""
    close = get_close_matches(word, [k for k in known if isinstance(k, str)], 3, 0.6)
    return f' Did you mean {" or ".join(map(repr, close))}?' if close else ''


def listing(names: Sequence[object], limit: int = 5) -> str:
    """Join the first names for a message, with the number of those left out."""
    text = ', '.join(map(str, names[:limit]))
    more = len(names) - limit
    return f'{text} and {more} more' if more > 0 else text


def closest(word: str, names: Iterable[str], limit: int = 8) -> str:
    """Join the names that are most like a word for a message, numbered ones as one group.

    ``layers.0.attn`` to ``layers.11.attn`` become ``layers.{0..11}.attn``.

    Args:
        word (str): What was given.
        names (Iterable[str]): What there is, with dots between the parts.
        limit (int): Groups that are shown; the number of names of the others follows.
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_pattern(name), []).append(name)
    shape = _pattern(word)
    order = sorted(
        groups, key=lambda pattern: -SequenceMatcher(None, shape, pattern).ratio()
    )
    text = ', '.join(_group(pattern, groups[pattern]) for pattern in order[:limit])
    more = sum(len(groups[pattern]) for pattern in order[limit:])
    return f'{text} and {more} more' if more else text


def _pattern(name: str) -> str:
    """Return a name with a star in the place of each number."""
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
    """Return a value from a file for a message: printable, and at most ``limit`` characters."""
    text = str(value)
    shown = text if text.isprintable() else repr(text)[1:-1]
    return shown if len(shown) <= limit else f'{shown[:limit]}...'


def first_line(error: BaseException) -> str:
    """Return the first line of a foreign error's text, or its kind if it has no text."""
    lines = str(error).split('\n')
    return next((line.strip() for line in lines if line.strip()), type(error).__name__)
