"""Find what the ``type`` of a dict in a config stands for."""

import contextlib
import importlib
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from mmengine.registry import Registry
from mmengine.utils import get_object_from_string

from lm4ve import registry as ours
from lm4ve.errors import UserError


def classes_named(name: str, path: str, scope: str) -> list[Any]:
    """Return what the registries of a scope hold under a name.

    Args:
        name (str): With a scope, as ``lm4ve.EpochLoop``, or without one. It may be a
            path in Python, too: ``torch.nn.Linear``.
        path (str): The place of the dict in the config, for the error.
        scope (str): The scope that a name without one belongs to. MMEngine's is its
            parent.

    Returns:
        list: Classes and functions, one from each registry that has the name. Nothing:
        it is in none of them, but no misspelling either.

    Raises:
        UserError: Nothing has that name, but something has a similar one.
    """
    prefix, _, bare = name.rpartition('.')
    if (prefix or scope) == ours.SCOPE:
        # The look-up imports the module that registers the name.
        with contextlib.suppress(RuntimeError):  # not registered
            ours.MODELS.get(bare)
    if prefix:
        registries = _registries_of([prefix])
    else:
        registries = _registries_of([scope, 'mmengine'])
    classes = []
    for registry in registries:
        if bare in registry.module_dict:
            classes.append(registry.module_dict[bare])
    if not classes and '.' in prefix:  # a path in Python
        with contextlib.suppress(Exception):
            classes = [get_object_from_string(name)]
    if not classes:
        _refuse_misspelling(bare, f"{path}.type='{name}'", registries)
    return classes


def _registries_of(scopes: Iterable[str]) -> list[Registry]:
    """Return the registries of scopes, filled by their libraries."""
    registries: list[Registry] = []
    for scope in scopes:
        with contextlib.suppress(ImportError):  # no scope
            module = importlib.import_module(f'{scope}.registry')
            for value in vars(module).values():
                if isinstance(value, Registry):
                    registries.append(value)
    for registry in registries:
        with contextlib.suppress(ImportError):  # an optional package
            registry.import_from_location()
    return registries


def _refuse_misspelling(name: str, field: str, registries: Iterable[Registry]) -> None:
    """Refuse a name that nothing has if something has a similar one.

    Raises:
        UserError: It suggests the similar name.
    """
    known = set(ours.PROVIDERS)
    for registry in registries:
        known |= registry.module_dict.keys()
    close = get_close_matches(name, known, 1, 0.8)
    if close:
        raise UserError(f"{field} is not registered. Did you mean '{close[0]}'?")
