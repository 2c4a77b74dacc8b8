"""Read values that are written as Python, as data: nothing of the text is run."""

import ast
from collections.abc import Callable
from typing import Any

#: Returns the value of an expression that is no literal, or raises an error.
Other = Callable[[ast.expr], Any]
#: How Python prints floating-point numbers that have no literal.
_NOT_FINITE = {'inf': float('inf'), 'nan': float('nan')}


def value_of(node: ast.expr, other: Other) -> Any:
    """Return the value of an expression of literals and calls of ``dict``.

    Args:
        node (ast.expr): The parsed expression.
        other (Callable): Gets each part that is neither a literal nor a container of
            such, and returns its value.

    Returns:
        Lists, tuples, sets, dicts, texts, bytes, numbers, True, False and None; what
        ``other`` returned in their places.

    Raises:
        TypeError: A dict or a set has a key that has no hash, such as a list.
    """
    if isinstance(node, ast.List):
        return [value_of(item, other) for item in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(value_of(item, other) for item in node.elts)
    if isinstance(node, ast.Set):
        return {value_of(item, other) for item in node.elts}
    if isinstance(node, ast.Dict):
        return _from_braces(node, other)
    if isinstance(node, ast.Call):
        return _from_call(node, other)
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name) and node.id in _NOT_FINITE:
        return _NOT_FINITE[node.id]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return _negative(node, other)
    return other(node)


def _negative(node: ast.UnaryOp, other: Other) -> Any:
    """Return a negative number."""
    value = value_of(node.operand, other)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return other(node)
    return -value


def _from_braces(node: ast.Dict, other: Other) -> Any:
    """Return a dict that is written with braces."""
    if any(key is None for key in node.keys):  # ** in front of a dict
        return other(node)
    fields = {}
    for key, value in zip(node.keys, node.values, strict=True):
        assert key is not None
        fields[value_of(key, other)] = value_of(value, other)
    return fields


def _from_call(node: ast.Call, other: Other) -> Any:
    """Return a dict that is written as ``dict(name=value)``, or as ``dict({'a-b': value})``.

    MMEngine writes the second one where a key is no name of Python.
    """
    if not isinstance(node.func, ast.Name) or node.func.id != 'dict':
        return other(node)
    if any(keyword.arg is None for keyword in node.keywords):  # **
        return other(node)
    fields: dict[Any, Any] = {}
    if node.args:
        if len(node.args) > 1 or not isinstance(node.args[0], ast.Dict):
            return other(node)
        given = _from_braces(node.args[0], other)
        if not isinstance(given, dict):
            return given
        fields.update(given)
    for keyword in node.keywords:
        fields[str(keyword.arg)] = value_of(keyword.value, other)
    return fields
