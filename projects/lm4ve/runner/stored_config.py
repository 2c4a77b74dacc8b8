"""Read the config that a checkpoint stores, as data.

MMEngine stores a config as the text of a Python file (``meta['cfg']``). Its own reader
(``Config.fromstring``) runs that text. Here only literals are read: a text from a file
that somebody else wrote executes nothing.
"""

import ast
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lm4ve.runner.literals import value_of

#: Characters of a config that is read; ours have up to 30,000.
LONGEST_TEXT = 1_000_000


@dataclass(frozen=True)
class Unreadable:
    """Stands for a value that is no plain data.

    Attributes:
        text (str): The value in words; equal ones stand for the same value.
    """

    text: str

    def __str__(self) -> str:
        return self.text

    __repr__ = __str__


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
            return plain_config(_from_text(stored))
        if isinstance(stored, Mapping):
            return plain_config(stored)
    except (SyntaxError, ValueError, TypeError) as e:
        return Unreadable(f'no Python data: {e}')
    except (RecursionError, MemoryError):
        return Unreadable('nested too deeply')
    return Unreadable(f'a {type(stored).__name__}')


def _from_text(text: str) -> dict[str, Any]:
    """Return the fields that a config file's text assigns literals to.

    Other statements, such as an import or a function, assign nothing that is read.

    Raises:
        SyntaxError, ValueError: It is no Python.
        TypeError: A key of a dict has no hash.
    """
    if len(text) > LONGEST_TEXT:
        raise ValueError(f'it has more than {LONGEST_TEXT:,} characters')
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
        return {str(key): plain_value(item) for key, item in value.items()}
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
