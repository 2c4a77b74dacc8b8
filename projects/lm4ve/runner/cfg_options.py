"""Read the values of ``--cfg-options``: MMEngine's notation, and dicts in Python's.

MMEngine reads numbers, words and nested lists of them (``layers="(1, 2)"``,
``topk=1,5``). At a dict within a list it recurses for ever, and a dict alone becomes a
text. Here a dict may be written as in a config file, also without quotation marks,
which a shell removes: ``pipeline="[dict(type=Resize, scale=8),
dict(type=PackInputs)]"``.
"""

import argparse
import ast
import re
from collections.abc import Sequence
from typing import Any

from mmengine.config import DictAction

from lm4ve.errors import UserError, brief
from lm4ve.runner.literals import value_of

#: Begins a value with a dict, perhaps in lists.
_DICT = re.compile(r"""[\s\[('"]*(dict\s*\(|\{\s*\}|\{.*:)""", re.DOTALL)


class OptionsAction(argparse.Action):
    """Collect ``FIELD=VALUE`` words in a dict; the flag may be given more than once."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Add the words of one flag.

        Raises:
            UserError: See :func:`parse_option`.
        """
        options = dict(getattr(namespace, self.dest, None) or {})
        for word in values or ():
            field, value = parse_option(word)
            options[field] = value
        setattr(namespace, self.dest, options)


def parse_option(word: str) -> tuple[str, Any]:
    """Return the field and the value of ``FIELD=VALUE``.

    Raises:
        UserError: There is no '=', or the value's brackets or its dict are wrong.
    """
    field, equals, text = word.partition('=')
    if not (field and equals):
        raise UserError(
            f"--cfg-options '{brief(word)}' is not FIELD=VALUE. Fix: add '=' and a value."
        )
    try:
        if _DICT.match(text):
            return field, _from_python(text.strip(' \'"'))
        return field, DictAction._parse_iterable(text)
    except (
        SyntaxError,
        ValueError,
        TypeError,  # a list as a key
        AssertionError,
        RecursionError,
    ) as e:
        raise UserError(
            f'--cfg-options {field}={brief(text)} cannot be read. Fix: close its brackets, and '
            'write dicts as in Python, for example "[dict(type=Resize, scale=8)]".'
        ) from e


def _from_python(text: str) -> Any:
    """Return the value of a Python expression that is written in an option, without running it.

    Raises:
        ValueError: It has anything but literals, calls of ``dict`` and bare words in it.
    """
    return value_of(ast.parse(text, mode='eval').body, _bare_word)


def _bare_word(node: ast.expr) -> Any:
    """Return a word without quotation marks, such as lm4ve.LLMBlockNeck, as a text.

    Raises:
        ValueError: The expression is anything else, and no number.
    """
    if isinstance(node, (ast.Name, ast.Attribute)):
        return ast.unparse(node)
    return ast.literal_eval(node)
