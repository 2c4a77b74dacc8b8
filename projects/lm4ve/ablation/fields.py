"""Overrides of config fields: checked before a run starts, and counted as one id.

MMEngine merges an override whose name is misspelt without a word; a grid would then
train the same model under several names. Here every override must hit a field that
is in the config, or an argument of the class that the config names there.
"""

import contextlib
import copy
import functools
import hashlib
import importlib
import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine import registry as root
from mmengine.config import Config
from mmengine.registry import Registry
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner, TestLoop
from torch.utils.data import DataLoader

from lm4ve.errors import UserError
from lm4ve.runner.config import read_config
from lm4ve.version import __version__

#: Fields that the tools and MMEngine read, and that are no arguments of the Runner.
_TOP = ('auto_scale_lr', 'custom_imports', 'runner_type', 'tta_model', 'tta_pipeline')
_LOADER = ('batch_sampler', 'collate_fn', 'dataset', 'sampler', 'worker_init_fn')


@functools.cache
def _read(path: Path) -> Config:
    return read_config(path, set_scope=False)


def fresh_config(path: Path) -> Config:
    """Return a config file's content, a copy of its own; each file is read once.

    Raises:
        UserError: There is no such file.
    """
    return copy.deepcopy(_read(path))


def merge(cfg: Config, options: dict, where: str) -> Config:
    """Merge overrides into a config, one after the other, each checked.

    Args:
        cfg (Config): Changed in place.
        options (dict): Dotted field name -> value, as ``--cfg-options`` takes them.
        where (str): Says in messages what the overrides belong to.

    Returns:
        Config: ``cfg``.

    Raises:
        UserError: An override hits nothing.
    """
    scope = cfg.get('default_scope')
    for key, value in options.items():
        parts = key.split('.')
        node: Any = cfg
        for i, part in enumerate(parts[:-1]):
            node = _child(node, part, parts[:i], key, where)
        _check(node, parts[-1], value, parts[:-1], f'{where}: {key}', scope)
        # MMEngine removes `_delete_` from the value that it is given.
        cfg.merge_from_dict({key: copy.deepcopy(value)})
    return cfg


def _has(node: Any, part: str) -> bool:
    if isinstance(node, (list, tuple)):
        return part.isdigit() and int(part) < len(node)
    return isinstance(node, (dict, Config)) and part in node


def _child(node: Any, part: str, path: Sequence[str], key: str, where: str) -> Any:
    if not _has(node, part):
        raise UserError(
            f"{where}: {key}: {_describe(node, path)} has no '{part}'. Fix: {_names(node)}."
        )
    return node[int(part)] if isinstance(node, (list, tuple)) else node[part]


def _check(
    node: Any, part: str, value: Any, path: Sequence[str], where: str, scope: str | None
) -> None:
    """Check that ``node[part] = value`` hits something."""
    inner, is_dict = [*path, part], isinstance(value, dict)
    if not _has(node, part):
        allowed = _arguments(node, path, scope)
        if part not in allowed:
            raise UserError(
                f"{where}: {_describe(node, path)} has no '{part}'. Fix: {_names(node, allowed)}."
            )
        if is_dict and '_delete_' in value:
            raise UserError(
                f"{where}: '_delete_', but there is no {'.'.join(inner)} in the config. Fix: leave "
                "'_delete_' out."
            )
    elif is_dict and not value.get('_delete_'):
        old = _child(node, part, path, part, where)
        if not isinstance(old, (dict, list)):
            raise UserError(
                f'{where}: {".".join(inner)} is {old!r}, not a dict that could be merged into. '
                "Fix: '_delete_': True in the value."
            )
        for name, item in value.items():
            _check(old, name, item, inner, where, scope)
        return
    if is_dict and 'type' in value:
        allowed = _arguments(value, inner, scope)
        for name in value.keys() - allowed - {'type', '_scope_', '_delete_'}:
            raise UserError(
                f"{where}: '{value['type']}' takes no '{name}'. Fix: {_names({}, allowed)}."
            )


def _describe(node: Any, path: Sequence[str]) -> str:
    name = '.'.join(path) or 'the config'
    if isinstance(node, (dict, Config)):
        kind = node.get('type')
        return f'{name} ({kind})' if kind else name
    return f'{name}={node!r}' if node is None else f'{name} ({type(node).__name__})'


def _names(node: Any, more: Sequence[str] = ()) -> str:
    keys = list(node) if isinstance(node, (dict, Config)) else []
    if isinstance(node, (list, tuple)):
        return f'name an index below {len(node)}'
    found = sorted({*map(str, keys), *more})
    return f'one of {", ".join(found)}' if found else 'set its parent first'


# ------------------------------------------------- arguments of what is named
def _arguments(node: Any, path: Sequence[str], scope: str | None) -> set[str]:
    """Return the names that may be added to a dict of a config, beyond those in it."""
    if not isinstance(node, (dict, Config)):
        return set()
    if not path:
        return parameters_of(Runner) | set(_TOP)
    if node.get('type') is not None:
        return _of_type(node['type'], scope)
    last = path[-1]
    if last == 'train_cfg':
        loop = EpochBasedTrainLoop if node.get('by_epoch') else IterBasedTrainLoop
        return parameters_of(loop) | {'by_epoch'}
    if last in ('val_cfg', 'test_cfg'):
        return parameters_of(TestLoop)
    if last == 'randomness':
        return parameters_of(Runner.set_randomness)
    if last.endswith('_dataloader'):
        return parameters_of(DataLoader) | set(_LOADER)
    return set()


def _of_type(name: Any, scope: str | None) -> set[str]:
    if not isinstance(name, str):
        return parameters_of(name)
    with contextlib.suppress(ImportError):
        importlib.import_module(f'{scope}.registry')
    found: set[str] = set()
    for registry in vars(root).values():
        if not isinstance(registry, Registry):
            continue
        # The name is not in this registry, or has no signature: ask the next one.
        with contextlib.suppress(RuntimeError, ImportError, TypeError, ValueError):
            here = registry.children.get(scope, registry)
            found |= parameters_of(here.get(name))
    return found


def parameters_of(target: Any) -> set[str]:
    """Return the names of a callable's parameters; a class passes ``**kwargs`` on."""
    if not inspect.isclass(target):
        return _named(target)[0]
    found: set[str] = set()
    for cls in target.__mro__:
        if cls is object or '__init__' not in vars(cls):
            continue
        names, passes_on = _named(vars(cls)['__init__'])
        found |= names
        if not passes_on:
            break
    return found


def _named(target: Any) -> tuple:
    p = inspect.Parameter
    parameters = inspect.signature(target).parameters.values()
    names = {q.name for q in parameters if q.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    return names - {'self'}, any(q.kind == p.VAR_KEYWORD for q in parameters)


# ------------------------------------------------------------------- identity
def identity(cfg: Config) -> str:
    """Return a hash of everything that a trial's result depends on, 16 hex digits.

    It covers the whole config with the trial's overrides, seed included, and the
    versions of this package and of PyTorch. It does not cover the files that the config
    names (data, checkpoints), the number of threads and the device.
    """
    what = dict(config=cfg.to_dict(), lm4ve=__version__, torch=torch.__version__)
    text = json.dumps(what, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
