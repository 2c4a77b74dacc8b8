"""What a class or function takes: its keyword arguments, and the types that they name.

The check of a config (:mod:`lm4ve.runner.config`) compares each dict with them.
"""

import ast
import inspect
import textwrap
import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, Union

import torch
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner
from torch import nn

#: What numbers are; a config's other values are texts, lists and dicts.
_NUMBERS = {int, float, bool}
#: What a config's values are.
_PLAIN = _NUMBERS | {str, dict, list, tuple, type(None)}
#: A type of a parameter that we cannot check a value against.
_ANYTHING = object()
#: How a message names the types of a parameter, in this order.
_NAMES = {
    int: 'a number',
    float: 'a number',
    bool: 'True or False',
    str: 'a text',
    list: 'a list',
    tuple: 'a list',
    dict: 'a dict',
    type(None): 'None',
}


@dataclass(frozen=True)
class Parameter:
    """An argument.

    Attributes:
        kinds (frozenset): Types that its annotation names, or the type of its default.
    """

    kinds: frozenset[Any]


@dataclass(frozen=True)
class Signature:
    """The keyword arguments of a class or function.

    Attributes:
        parameters (dict): Name -> the types that it names.
        is_open (bool): Whether it accepts others, too.
    """

    parameters: dict[str, Parameter]
    is_open: bool


def signature_of(target: Any) -> Signature:
    """Return the keyword arguments of a class or function.

    Where a constructor does nothing with ``**kwargs`` but call its parent's, the
    parent's count too.
    """
    if not inspect.isclass(target):
        return _signature_of_function(target)
    parameters: dict[str, Parameter] = {}
    for owner, constructor in _constructors(target):
        own = _signature_of_function(constructor)
        # A parent's parameter of the same name does not count.
        parameters = {**own.parameters, **parameters}
        if not own.is_open:
            return Signature(parameters, is_open=False)
        if owner is CheckpointHook:
            # Its other arguments are those of the method that it calls.
            saving = signature_of(Runner.save_checkpoint)
            return Signature({**saving.parameters, **parameters}, is_open=False)
        if not _only_passes_on_keywords(constructor):
            return Signature(parameters, is_open=True)
    return Signature(parameters, is_open=False)


def _constructors(cls: type) -> Iterator[tuple[type, Callable[..., Any]]]:
    """Yield a class and its parents, up to torch's, that have a constructor, and this."""
    for owner in cls.__mro__:
        if owner in (nn.Module, object):
            return
        if '__init__' in vars(owner):
            yield owner, vars(owner)['__init__']


def _signature_of_function(function: Callable[..., Any]) -> Signature:
    """Return a function's own keyword arguments; it is open if it has ``**kwargs``."""
    try:
        own = inspect.signature(function).parameters
    except (TypeError, ValueError):  # written in C
        return Signature({}, is_open=True)
    hints = _hints_of(function)
    parameters = {}
    is_open = False
    for name, parameter in own.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            is_open = True
        elif parameter.kind is not parameter.VAR_POSITIONAL and name != 'self':
            parameters[name] = Parameter(_kinds_of(parameter, hints.get(name)))
    return Signature(parameters, is_open)


def _only_passes_on_keywords(constructor: Callable[..., Any]) -> bool:
    """Return whether a constructor does nothing with its ``**kwargs`` but call its parent's."""
    try:
        source = textwrap.dedent(inspect.getsource(constructor))
    except (OSError, TypeError):  # written in C
        return False
    keywords = _name_of_keywords(constructor)
    times_used = 0
    times_passed_on = 0
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name) and node.id == keywords:
            times_used += 1
        if isinstance(node, ast.Call) and _is_init(node.func):
            for argument in node.keywords:
                if argument.arg is None and _is_name(argument.value, keywords):
                    times_passed_on += 1
    return times_passed_on > 0 and times_passed_on == times_used


def _name_of_keywords(function: Callable[..., Any]) -> str | None:
    """Return how a function calls its ``**kwargs``."""
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            return name
    return None


def _is_init(node: ast.expr) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == '__init__'


def _is_name(node: ast.expr, name: str | None) -> bool:
    return isinstance(node, ast.Name) and node.id == name


@cache
def _hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except Exception:
        # Such as a name that its module imports for type checkers only.
        return {}


def _kinds_of(parameter: inspect.Parameter, hint: Any) -> frozenset[Any]:
    """Return the types of a parameter: those of its annotation, else that of its default."""
    default = parameter.default
    if hint is not None:
        kinds = _flatten(hint)
        if default is not parameter.empty:
            kinds.add(type(default))
        return frozenset(kinds)
    # Many a default is False where a text is taken as well, such as a path.
    if type(default) in (int, float):
        return frozenset({int, float, list, tuple, type(None)})
    return frozenset({_ANYTHING})


def _flatten(hint: Any) -> set[Any]:
    """Return the plain types of an annotation; :data:`_ANYTHING` for what is none."""
    origin = typing.get_origin(hint)
    kinds: set[Any] = set()
    if origin in (Union, types.UnionType):
        for part in typing.get_args(hint):
            kinds |= _flatten(part)
        return kinds
    if origin is Literal:
        for value in typing.get_args(hint):
            kinds.add(type(value))
        return kinds
    if hint in (torch.Tensor, torch.nn.Parameter):  # which no config holds
        return kinds
    plain = origin or hint  # list[int] is a list
    kinds.add(plain if plain in _PLAIN else _ANYTHING)
    return kinds


def wanted_type(parameter: Parameter, value: Any) -> str | None:
    """Return what a parameter takes where a value is clearly none of it, or None.

    Clear is a text, a dict or a list in the place of a number. Annotations are not
    always exact: MMEngine's schedules, whose ``end`` is an int, take half an epoch as
    well, and many a parameter without ``None`` in its annotation takes it.

    Args:
        parameter (Parameter): What reads the value.
        value: A value of a config.

    Returns:
        str or None: For a message: 'a number or None'.
    """
    kinds = parameter.kinds
    takes_numbers = bool(kinds & _NUMBERS) and _ANYTHING not in kinds
    if not takes_numbers or not isinstance(value, (str, list, tuple, dict)):
        return None
    if any(issubclass(kind, _interchangeable(value)) for kind in kinds):
        return None
    names: list[str] = []
    for kind, name in _NAMES.items():
        if kind in kinds and name not in names:
            names.append(name)
    return ' or '.join(names)


def _interchangeable(value: Any) -> type | tuple[type, ...]:
    """Return the types that may stand for a value's: MMEngine's files make lists of tuples."""
    if isinstance(value, str):
        return str
    if isinstance(value, dict):
        return dict
    return (list, tuple)
