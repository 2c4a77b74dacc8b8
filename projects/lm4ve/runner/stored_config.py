"""Read the config that a checkpoint stores, as data, and reduce a config to what is compared.

MMEngine stores a config as the text of a Python file (``meta['cfg']``). Its own reader
(``Config.fromstring``) runs that text. Here only literals are read: a text from a file
that somebody else wrote executes nothing.
"""

import ast
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lm4ve.runner.literals import value_of

#: Longer texts are not parsed: a megabyte takes some hundred megabytes of memory.
LONGEST_TEXT = 1_000_000
#: A config of more values is not read. A pickle of some bytes can stand for billions, as
#: it may hold the same list again and again.
MOST_VALUES = 300_000
#: A config whose dicts and lists are nested more deeply is not read.
DEEPEST = 50


@dataclass(frozen=True)
class Unreadable:
    """Stands for a value that is no plain data.

    Attributes:
        text (str): The value in words; equal ones stand for the same value.
    """

    text: str


class _TooLargeError(Exception):
    """A config exceeds :data:`LONGEST_TEXT`, :data:`MOST_VALUES` or :data:`DEEPEST`."""


def stored_config(meta: Mapping[str, Any]) -> dict[str, Any] | Unreadable | None:
    """Return the config that a checkpoint stores, as plain data.

    Args:
        meta (Mapping): The checkpoint's ``meta``. Its ``cfg`` is MMEngine's text, or a
            dict as ``lm4ve export`` stores it.

    Returns:
        dict: The fields; a part that is no literal is an :class:`Unreadable` in its place.
        Unreadable: The config as a whole cannot be read.
        None: The checkpoint has none.
    """
    stored = meta.get('cfg')
    if stored is None or (isinstance(stored, str) and not stored):
        # MMEngine writes an empty text for a runner that was built without a config.
        return None
    try:
        if isinstance(stored, str):
            fields: Any = _from_text(stored)
        elif isinstance(stored, Mapping):
            fields = stored
        else:
            return Unreadable(f'a {type(stored).__name__}')
        _check_size(fields, iter(range(MOST_VALUES)), DEEPEST)
        return plain_config(fields)
    except (SyntaxError, ValueError, TypeError) as e:
        return Unreadable(f'no Python data: {e}')
    except (RecursionError, MemoryError):
        return Unreadable('nested too deeply')
    except _TooLargeError:
        return Unreadable('too large')


def _from_text(text: str) -> dict[str, Any]:
    """Return the fields that a config file's text assigns literals to.

    Other statements, such as an import or a function, assign nothing that is read.

    Raises:
        SyntaxError, ValueError: It is no Python.
        TypeError: A key of a dict has no hash.
        _TooLargeError: It is too long.
    """
    if len(text) > LONGEST_TEXT:
        raise _TooLargeError
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of the text, such as an unknown escape
        tree = ast.parse(text)
    fields: dict[str, Any] = {}
    for statement in tree.body:
        if not isinstance(statement, ast.Assign):
            continue
        for target in statement.targets:
            if isinstance(target, ast.Name):
                fields[target.id] = value_of(statement.value, _unreadable)
    return fields


def _unreadable(node: ast.expr) -> Unreadable:
    return Unreadable(ast.unparse(node))


def _check_size(value: Any, left: Iterator[int], depth: int) -> None:
    """Refuse a value with too many values in it, or too deep ones.

    Args:
        value: The value.
        left (Iterator[int]): Has an item for each value that may still come.
        depth (int): How many dicts and lists may still be within each other.

    Raises:
        _TooLargeError: It is too large, or holds itself.
    """
    if next(left, None) is None or depth == 0:
        raise _TooLargeError
    children: Iterable[Any] = ()
    if isinstance(value, Mapping):
        children = value.values()
    elif isinstance(value, (list, tuple)):
        children = value
    for child in children:
        _check_size(child, left, depth - 1)


def plain_config(cfg: Mapping[Any, Any]) -> dict[str, Any]:
    """Return a config as plain data: dicts, lists, tuples, numbers, texts.

    Args:
        cfg (Config | Mapping): The config; it is not changed.
    """
    return {str(name): plain_value(value) for name, value in cfg.items()}


def plain_value(value: Any) -> Any:
    """Return a value of a config as plain data.

    A class or a function, which configs may have as a ``type``, becomes its name with its
    module. Another object becomes an :class:`Unreadable`.
    """
    if isinstance(value, Unreadable):
        return value
    if isinstance(value, Mapping):
        return {key: plain_value(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain_value(item) for item in value]
    if isinstance(value, tuple):
        return tuple(plain_value(item) for item in value)
    if value is None or isinstance(value, (bool, int, float, str, bytes)):
        return value
    name = getattr(value, '__qualname__', None)
    if isinstance(name, str):
        return f'{value.__module__}.{name}'
    # Such as torch.float32, which a stored text has in the same words.
    return Unreadable(str(value))
