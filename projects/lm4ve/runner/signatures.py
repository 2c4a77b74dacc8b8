"""Find the keyword arguments of a class or function, and the types of their annotations.

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

#: The types of numbers in a config.
_NUMBERS = {int, float, bool}
#: The types of all values in a config.
_PLAIN = _NUMBERS | {str, dict, list, tuple, type(None)}
#: Stands for a type that is none of these, for which no value is refused.
_ANYTHING = object()
#: The types of a parameter in words, in the order of a message.
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
    """An argument of a class or function.

    Attributes:
        kinds (frozenset): The types of its annotation and of its default. They may
            include :data:`_ANYTHING`.
    """

    kinds: frozenset[Any]


@dataclass(frozen=True)
class Signature:
    """The keyword arguments of a class or function.

    Attributes:
        parameters (dict[str, Parameter]): The arguments by name.
        is_open (bool): Whether it accepts further ones, by ``**kwargs``.
    """

    parameters: dict[str, Parameter]
    is_open: bool


def signature_of(target: Any) -> Signature:
    """Return the keyword arguments of a class or function.

    A constructor that only passes its ``**kwargs`` to its parent's constructor has the
    arguments of that, too.
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
    """Yield the classes that define a constructor, from a class up, each with its constructor.

    The search ends at ``nn.Module`` and ``object``.
    """
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
    # What replaces an argument that is gone, the constructor itself says.
    for name in getattr(function, 'removed', ()):
        parameters[name] = Parameter(frozenset({_ANYTHING}))
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
    """Return the name of a function's parameter for further keywords, mostly 'kwargs'."""
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
    """Return a function's annotations by parameter; none if they cannot be evaluated."""
    try:
        return typing.get_type_hints(function)
    except Exception:
        # Such as a name that its module imports for type checkers only.
        return {}


def _kinds_of(parameter: inspect.Parameter, hint: Any) -> frozenset[Any]:
    """Return the types that a parameter accepts, as far as its annotation and default show.

    Args:
        parameter (inspect.Parameter): The parameter.
        hint: Its annotation, or None if it has none.

    Returns:
        frozenset: Plain types of Python. Without an annotation, they follow from the
        default: if it is a number, the parameter accepts numbers, lists, tuples and
        None; otherwise the result is :data:`_ANYTHING` alone, which accepts any value.
    """
    default = parameter.default
    if hint is not None:
        kinds = _flatten(hint)
        if default is not parameter.empty:
            kinds.add(type(default))
        return frozenset(kinds)
    # A default of False shows no type: such parameters often accept a text as well.
    if type(default) in (int, float):
        return frozenset({int, float, list, tuple, type(None)})
    return frozenset({_ANYTHING})


def _flatten(hint: Any) -> set[Any]:
    """Return the plain types in an annotation, with :data:`_ANYTHING` for each other type."""
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
    """Return the type that a parameter expects, if a value is clearly of another one.

    It is clear for a text, a dict or a list in the place of a number. Other values are
    accepted, since annotations are not always exact: ``end`` of MMEngine's schedules is
    an int and may be half an epoch, and many parameters accept None without saying so.

    Args:
        parameter (Parameter): The parameter that gets the value.
        value: A value of a config.

    Returns:
        str or None: The type for a message, such as 'a number or None'. None: the value
        is accepted.
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
    """Return the types of a value: for a list also tuple, since MMEngine exchanges the two."""
    if isinstance(value, str):
        return str
    if isinstance(value, dict):
        return dict
    return (list, tuple)
