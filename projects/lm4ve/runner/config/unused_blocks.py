"""Refuse a config with a block or a neck in a variable that nothing uses.

The files below ``configs/_base_`` define blocks and necks as variables, which a config
has to assign to its model. A config that inherits such a file and forgets to do so
would train the model without a block, under a name that says otherwise.
"""

import contextlib
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config
from torch import nn

from lm4ve.blocks import LLMBlock, MLPBlock
from lm4ve.errors import UserError
from lm4ve.necks import LLMBlockInsert, LLMBlockNeck
from lm4ve.runner.config.classes import classes_named
from lm4ve.runner.config.fields import FIELDS, find_definition

_BLOCKS = (LLMBlock, MLPBlock)
#: Classes, and a function that makes one.
_WITH_BLOCK: tuple[Any, ...] = (*_BLOCKS, LLMBlockNeck, LLMBlockInsert)


def refuse_unused_blocks(cfg: Config) -> None:
    """Refuse a config whose variables have a block, but whose fields have none.

    A control may have another block than the one that it inherits. A leading ``_``
    permits a variable, as does its name in the config's ``allow_new``.

    Args:
        cfg (Config): The config.

    Raises:
        UserError: It names the variables, the file that defines the one to use, and the
            line that uses it.
    """
    scope = cfg.get('default_scope') or 'mmengine'
    permitted = cfg.get('allow_new') or ()
    unused = {}
    is_used = False
    for name, value in cfg.items():
        if name.startswith('_') or name in permitted:
            continue
        if not _has_block(value, scope):
            continue
        if name in FIELDS:
            is_used = True
        else:
            unused[name] = value
    if unused and not is_used:
        raise UserError(_describe(cfg, unused, scope))


def _has_block(value: Any, scope: str) -> bool:
    """Return whether a value of a config is or contains a block or a neck of ours."""
    if isinstance(value, nn.Module):
        return any(_is_one_of(type(module), _WITH_BLOCK) for module in value.modules())
    if isinstance(value, (list, tuple)):
        return any(_has_block(entry, scope) for entry in value)
    if not isinstance(value, Mapping):
        return False
    if _is_a(value, _WITH_BLOCK, scope):
        return True
    scope = value.get('_scope_') or scope
    return any(_has_block(entry, scope) for entry in value.values())


def _is_a(value: Any, kinds: tuple[Any, ...], scope: str) -> bool:
    """Return whether the ``type`` of a dict stands for one of some of our classes."""
    if not isinstance(value, Mapping):
        return False
    named = value.get('type')
    candidates = [named]
    if isinstance(named, str):
        candidates = []
        prefix, _, name = named.rpartition('.')
        # A name with a scope may also be registered in MMEngine's, the parent of all.
        scope = prefix or value.get('_scope_') or scope
        # The check of fields reports a misspelled name.
        with contextlib.suppress(UserError):
            candidates = classes_named(name, 'type', scope)
    return any(_is_one_of(candidate, kinds) for candidate in candidates)


def _is_one_of(candidate: Any, kinds: tuple[Any, ...]) -> bool:
    """Return whether a class or function is one of ours, or a subclass of one."""
    if candidate in kinds:
        return True
    classes = tuple(kind for kind in kinds if isinstance(kind, type))
    return isinstance(candidate, type) and issubclass(candidate, classes)


# --------------------------------------------------------------------------- message
def _describe(cfg: Config, unused: Mapping[str, Any], scope: str) -> str:
    """Return the message about variables that nothing uses.

    Args:
        cfg (Config): The config.
        unused (Mapping): Name -> value of each variable.
        scope (str): The scope of types.
    """
    ranks = {name: _rank(value, scope) for name, value in unused.items()}
    name = max(unused, key=ranks.__getitem__)
    file = find_definition(cfg, name)
    place = ''
    reference = name
    if file is not None:
        place = f" of '{file}'"
        if file != cfg.filename:
            reference = f'_base_.{name}'
    others = ''
    if len(unused) > 1:
        others = f' (as do {", ".join(sorted(unused.keys() - {name}))})'
    line = _line_that_uses(reference, unused[name], ranks[name])
    return (
        f'{name}{place} holds a block or a neck{others}, and model has none: it would train '
        f'without it. Fix: write {line}; or, if that is meant, set '
        f'allow_new={sorted(unused)}.'
    )


#: What a variable holds, from what says least about the model to what says most.
_SOMETHING, _BLOCK, _NECK, _INSERT, _MODEL = range(5)


def _rank(value: Any, scope: str) -> int:
    """Return what a variable holds: one of the constants above."""
    if _is_a(value, _BLOCKS, scope):
        return _BLOCK
    if _is_a(value, (LLMBlockNeck,), scope):
        return _NECK
    if _is_a(value, (LLMBlockInsert,), scope):
        return _INSERT
    if isinstance(value, Mapping) and ('neck' in value or 'backbone' in value):
        return _MODEL
    return _SOMETHING


def _line_that_uses(reference: str, value: Any, rank: int) -> str:
    """Return the line of a config that puts a variable into the model.

    Args:
        reference (str): How the config reads the variable.
        value: Its value.
        rank (int): What it holds.
    """
    if rank == _MODEL:
        return f'model = {reference}'
    if rank == _INSERT:
        return f'model = dict(backbone=dict({reference}, _delete_=True, backbone=...))'
    if rank == _NECK and 'block' in value:
        return f'model = dict(neck=dict({reference}, _delete_=True))'
    if rank == _NECK:
        return f'model = dict(neck=dict({reference}, _delete_=True, in_channels=..., block=...))'
    block = reference if rank == _BLOCK else '...'
    return (
        "model = dict(neck=dict(_delete_=True, type='LLMBlockNeck', in_channels=..., "
        f'block={block}))'
    )
