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
    """Return the classes and functions that are registered under a name.

    Args:
        name (str): With a scope, as ``lm4ve.EpochLoop``, or without one. It may also be
            an import path: ``torch.nn.Linear``.
        path (str): The path of the dict in the config, for the error.
        scope (str): The scope of a name without one. MMEngine's registries, the parents
            of all others, are searched too.

    Returns:
        list: Classes and functions, one from each registry that has the name. Empty: no
        registry has it, nor a similar name.

    Raises:
        UserError: The name is not registered, but a similar one is.
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
        _refuse_misspelling(name, path, registries)
    return classes


def _registries_of(scopes: Iterable[str]) -> list[Registry]:
    """Return all registries of some scopes, after the import of what registers in them.

    Scopes and modules that cannot be imported are left out: their packages are optional.
    """
    registries: list[Registry] = []
    for scope in scopes:
        with contextlib.suppress(ImportError):  # no package of this name
            module = importlib.import_module(f'{scope}.registry')
            for value in vars(module).values():
                if isinstance(value, Registry):
                    registries.append(value)
    for registry in registries:
        with contextlib.suppress(ImportError):  # an optional package
            registry.import_from_location()
    return registries


def _refuse_misspelling(name: str, path: str, registries: Iterable[Registry]) -> None:
    """Refuse a name that is not registered, if a similar one is.

    Args:
        name (str): The name, perhaps with a scope.
        path (str): The path of the dict that has it as its type.
        registries (Iterable[Registry]): Its scope has them. They and ours have the registered
            names.

    Raises:
        UserError: It suggests the similar name, which may be the same in our scope.
    """
    prefix, _, bare = name.rpartition('.')
    # Bare name -> how a config has to write it.
    known = {provided: f'{ours.SCOPE}.{provided}' for provided in ours.PROVIDERS}
    for registry in registries:
        for registered in registry.module_dict:
            # A name without a scope was looked up where it needs none.
            known[registered] = f'{prefix}.{registered}' if prefix else registered
    close = get_close_matches(bare, known, 1, 0.8)
    if close:
        raise UserError(
            f"{path}.type='{name}' is not registered. Did you mean '{known[close[0]]}'?"
        )
