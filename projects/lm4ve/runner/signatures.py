"""What a class or function takes: its keyword arguments, and the types that they name.

The check of a config (:mod:`lm4ve.runner.config`) compares each dict with them.
"""

import ast
import inspect
import textwrap
import types
import typing
from collections.abc import Callable
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


@dataclass(frozen=True)
class Signature:
    """The keyword arguments of a class or function.

    Attributes:
        parameters (dict): Name -> the types that it names, and its default.
        is_open (bool): Whether it accepts others, too.
    """

    parameters: dict[str, 'Parameter']
    is_open: bool


@dataclass(frozen=True)
class Parameter:
    """An argument.

    Attributes:
        kinds (frozenset): Types that its annotation names, or the type of its default.
    """

    kinds: frozenset[Any]


def signature_of(target: Any) -> Signature:
    """Return the keyword arguments of a class or function.

    Where a constructor does nothing with ``**kwargs`` but call its parent's, the
    parent's count too.
    """
    parameters: dict[str, Parameter] = {}
    for owner in target.__mro__ if inspect.isclass(target) else (target,):
        if owner in (nn.Module, object):
            break
        function = vars(owner).get('__init__') if inspect.isclass(owner) else owner
        if function is None:
            continue
        try:
            own = inspect.signature(function).parameters
        except (TypeError, ValueError):  # written in C
            return Signature(parameters, is_open=True)
        hints = _hints_of(function)
        keywords = None
        for name, parameter in own.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                keywords = name
            elif parameter.kind is not parameter.VAR_POSITIONAL and name != 'self':
                parameters.setdefault(
                    name, Parameter(_kinds_of(parameter, hints.get(name)))
                )
        if keywords is None:
            return Signature(parameters, is_open=False)
        if owner is CheckpointHook:
            saving = signature_of(Runner.save_checkpoint)
            return Signature({**saving.parameters, **parameters}, is_open=False)
        if not _only_passes_on(function, keywords):
            return Signature(parameters, is_open=True)
    return Signature(parameters, is_open=False)


def _only_passes_on(function: Callable[..., Any], keywords: str) -> bool:
    """Return whether a constructor does nothing with its ``**kwargs`` but call its parent's."""
    try:
        nodes = [*ast.walk(ast.parse(textwrap.dedent(inspect.getsource(function))))]
    except (OSError, TypeError):
        return False
    calls = [n for n in nodes if isinstance(n, ast.Call)]
    passed = [
        k
        for c in calls
        if getattr(c.func, 'attr', '') == '__init__'
        for k in c.keywords
    ]
    count = sum(
        k.arg is None and getattr(k.value, 'id', '') == keywords for k in passed
    )
    used = sum(getattr(n, 'id', '') == keywords for n in nodes)
    return bool(0 < count == used)


@cache
def _hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except (
        Exception
    ):  # a name that its module imports for type checkers only, and others
        return {}


def _kinds_of(parameter: inspect.Parameter, hint: Any) -> frozenset[Any]:
    """Return the types of a parameter: those of its annotation, else that of its default."""
    default = parameter.default
    if hint is not None:
        kinds = _flatten(hint)
        return frozenset(
            kinds if default is parameter.empty else {*kinds, type(default)}
        )
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
    plain = origin or hint
    kinds.add(plain if plain in _PLAIN else _ANYTHING)
    return kinds


def wanted_type(parameter: Parameter, value: Any) -> str | None:
    """Return what a parameter takes where a value is clearly none of it, or None.

    Clear is a text, a dict or a list in the place of a number. Annotations are not
    always exact: MMEngine's schedules, whose ``end`` is an int, take half an epoch as
    well, and many a parameter without ``None`` in its annotation takes it.
    """
    kinds = parameter.kinds
    takes_numbers = bool(kinds & _NUMBERS) and _ANYTHING not in kinds
    if not takes_numbers or not isinstance(value, (str, list, tuple, dict)):
        return None
    if any(issubclass(kind, _family(value)) for kind in kinds):
        return None
    names = []
    if kinds & {int, float}:
        names.append('a number')
    if bool in kinds:
        names.append('True or False')
    for kind, name in (
        (str, 'a text'),
        (list, 'a list'),
        (tuple, 'a list'),
        (dict, 'a dict'),
    ):
        if kind in kinds and name not in names:
            names.append(name)
    if type(None) in kinds:
        names.append('None')
    return ' or '.join(names)


def _family(value: Any) -> type | tuple[type, ...]:
    """Return the types that may stand for each other: MMEngine's files make lists of tuples."""
    if isinstance(value, (list, tuple)):
        return list, tuple
    return str if isinstance(value, str) else dict
