"""Check a config before anything is built from it.

MMEngine ignores a misspelled key (``env_cfg.cudnn_benchmrk``) or fails on it hours later
(``clip_grad.max_nrom`` in the first step). :func:`check_config` compares the keys of every
dict with the parameters of the class that its ``type`` names, at any depth, and MMEngine's own
dicts with a table.
"""

import ast
import contextlib
import functools
import importlib
import inspect
import logging
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.hooks import CheckpointHook, Hook
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper, _ParamScheduler
from mmengine.registry import Registry
from mmengine.runner import (
    EpochBasedTrainLoop,
    FlexibleRunner,
    IterBasedTrainLoop,
    LogProcessor,
    Runner,
    TestLoop,
    ValLoop,
)
from mmengine.utils import get_object_from_string
from mmengine.utils.dl_utils import set_multi_processing
from torch import nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.utils.data import DataLoader

from lm4ve import registry as ours
from lm4ve.errors import UserError, did_you_mean, listing

#: Top-level fields that MMEngine's runners and the commands read.
FIELDS = {
    *inspect.signature(Runner).parameters,
    *inspect.signature(FlexibleRunner).parameters,
    *('activation_checkpointing', 'allow_new', 'compile', 'custom_imports', 'image_size'),
    *('efficient_conv_bn_eval', 'find_unused_parameters', 'init_weights_for_test_or_val'),
    *('model_wrapper_cfg', 'runner_type', 'sync_bn', 'tta_model', 'tta_pipeline'),
}
_PARAMWISE = {
    *('custom_keys', 'bias_lr_mult', 'bias_decay_mult', 'norm_decay_mult', 'dwconv_decay_mult'),
    *('dcn_offset_lr_mult', 'flat_decay_mult', 'bypass_duplicate'),
}
#: Path of a dict without ``type`` -> what reads it: keys, or functions with these parameters.
_OWN: dict[str, tuple[Any, ...]] = {
    'env_cfg': ({'cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit'},),
    'env_cfg.mp_cfg': (set_multi_processing,),
    'randomness': (Runner.set_randomness,),
    'auto_scale_lr': ({'enable', 'base_batch_size'},),
    'log_processor': (LogProcessor,),
    'train_cfg': (EpochBasedTrainLoop, IterBasedTrainLoop, {'by_epoch'}),
    'val_cfg': (ValLoop,),
    'test_cfg': (TestLoop,),
    **{
        f'{stage}_dataloader': (DataLoader, {'num_batch_per_epoch'})
        for stage in ('train', 'val', 'test')
    },
    'optim_wrapper': (OptimWrapper,),
}
#: Class -> keys that are read from its config before it is built.
_BESIDES: dict[type, set[str]] = {
    Hook: {'priority'},
    _ParamScheduler: {'convert_to_iter_based'},
    OptimWrapper: {'optimizer', 'constructor', 'paramwise_cfg'},
}
#: Class that keeps its keyword arguments -> the function that it calls with them.
_KEYWORDS_GO_TO: dict[type, Callable[..., Any]] = {CheckpointHook: Runner.save_checkpoint}


def check_config(cfg: Config) -> None:
    """Raise an error for the first key of a config that nothing would read.

    ``allow_new = ['env_cfg.mine']`` in a config permits a key, as does a leading ``_``.

    Raises:
        UserError: It names the key's path and the closest known keys.
    """
    for name in cfg.keys() - FIELDS - variables_of(cfg):
        close = get_close_matches(name, FIELDS, 1, 0.8)
        # 'train_pipeline_2' is no misspelling, nor is 'test_pipeline' of 'tta_pipeline'.
        if close and not name.startswith(close[0]) and _same_words(name, close[0]):
            _refuse_unknown(cfg, '', [name], FIELDS)
    for name in cfg.keys() & FIELDS:
        _check(cfg, cfg[name], name, cfg.get('default_scope') or 'mmengine')


def _same_words(name: str, field: str) -> bool:
    words, others = name.split('_'), field.split('_')
    if len(words) != len(others):
        return abs(len(name) - len(field)) < 2  # 'optimwrapper'
    return all(get_close_matches(a, [b], 1, 0.6) for a, b in zip(words, others, strict=True))


def check_option(cfg: Config, field: str) -> None:
    """Raise an error for a field of ``--cfg-options`` that would have no effect.

    Raises:
        UserError: It is read before the overrides apply, or the config has no such field.
    """
    first = field.partition('.')[0]
    if first == 'custom_imports' or first in variables_of(cfg):
        raise UserError(
            f"{field}: '{first}' is used up when the config file is read; override the field that "
            f'holds it, or write allow_new.{field}.'
        )
    _refuse_unknown(cfg, '', [first], FIELDS | cfg.keys())


def check_custom_keys(cfg: Config, model: nn.Module) -> None:
    """Warn of ``paramwise_cfg.custom_keys`` that match no parameter of the model.

    A part that the model can have but does not (``neck=None``) is no mistake.
    """
    custom = ((cfg.get('optim_wrapper') or {}).get('paramwise_cfg') or {}).get('custom_keys') or {}
    names = [f'.{name}' for name, _ in model.named_parameters()]
    unused = [key for key in custom if not any(key in name for name in names)]
    unused = [key for key in unused if not hasattr(model, key.partition('.')[0] or '.')]
    if unused:
        text = f'optim_wrapper.paramwise_cfg.custom_keys: no parameter matches {listing(unused)}.'
        print_log(text, logger='current', level=logging.WARNING)


def variables_of(cfg: Config) -> set[str]:
    """Return the top-level names of a config that only its own Python files read."""
    text = cfg.text or ''
    used = set(re.findall(r"""_base_(?:\.|\[['"])(\w+)""", text))
    # Each file's text comes after a line with its path.
    parts = re.split(r'(?m)^(\S+\.(?:py|json|ya?ml))$', text)
    for path, code in zip(parts[1::2], parts[2::2], strict=True):
        is_piece = '_base_' in Path(path).parts  # offers variables; not all need be used
        for node in ast.walk(ast.parse(code if path.endswith('.py') else '')):
            if isinstance(node, ast.Name) and (is_piece or isinstance(node.ctx, ast.Load)):
                used.add(node.id)
    return used & set(cfg) - FIELDS


def _check(cfg: Config, node: Any, path: str, scope: str) -> None:
    """Check a part of the config and everything below it.

    Raises:
        UserError: See :func:`check_config`.
    """
    if isinstance(node, (list, tuple)):
        for i, value in enumerate(node):
            _check(cfg, value, f'{path}.{i}', scope)
    if not isinstance(node, Mapping):
        return
    scope = node.get('_scope_') or scope
    classes = _find(cfg, node['type'], path, scope) if node.get('type') else []
    known = _known_keys(cfg, node, path, classes)
    if known is not None:
        _refuse_unknown(cfg, f'{path}.', node, known | {'type'} if classes else known)
    # mmpretrain's backbones read of a dict `arch` what their table has, and ignore the rest.
    tables = [t for c in classes for t in getattr(c, 'arch_zoo', {}).values()]
    if tables and isinstance(node.get('arch'), Mapping):
        _refuse_unknown(cfg, f'{path}.arch.', node['arch'], {k for t in tables for k in t})
    for key, value in node.items():
        _check(cfg, value, f'{path}.{key}', scope)


def _known_keys(
    cfg: Config, node: Mapping[str, Any], path: str, classes: Iterable[Any]
) -> set[str] | None:
    """Return the keys that are read from a dict, or None if any may be."""
    if path == 'optim_wrapper.clip_grad':
        by_value = node.get('type') == 'value'
        return {'type', *(parameters_of(clip_grad_value_ if by_value else clip_grad_norm_) or ())}
    if path == 'optim_wrapper.paramwise_cfg':
        constructor = cfg.optim_wrapper.get('constructor', 'DefaultOptimWrapperConstructor')
        return _PARAMWISE if constructor == 'DefaultOptimWrapperConstructor' else None
    if path == 'optim_wrapper' and 'optimizer' not in node:
        return None  # several optimizers, by a constructor of their own
    if 'model_type' in node:
        from transformers import CONFIG_MAPPING

        if node['model_type'] not in CONFIG_MAPPING:
            return None
        config = CONFIG_MAPPING[node['model_type']]()
        return {*dir(config), *config.attribute_map}
    sources = classes or _OWN.get(path, ())
    known = {'requires_grad'} if path.endswith('norm_cfg') else set()  # mmcv's `build_norm_layer`
    for source in sources:
        names = source if isinstance(source, set) else parameters_of(source)
        if names is None:
            return None
        known |= names
        if inspect.isclass(source):
            known.update(*(keys for base, keys in _BESIDES.items() if issubclass(source, base)))
    return known if sources else None


def _find(cfg: Config, name: Any, path: str, scope: str) -> list[Any]:
    """Return what the registries of a scope hold under a ``type``.

    Raises:
        UserError: Nothing, but something of a similar name.
    """
    if not isinstance(name, str):
        return [name] if callable(name) else []
    prefix, _, bare = name.rpartition('.')
    if (prefix or scope) == ours.SCOPE:
        with contextlib.suppress(RuntimeError):  # not registered
            ours.MODELS.get(bare)  # imports the module that registers it
    scopes = (prefix,) if prefix else (scope, 'mmengine')
    registries = [r for s in scopes for r in _registries(s)]
    found = [r.module_dict[bare] for r in registries if bare in r.module_dict]
    if not found and '.' in prefix:  # a path in Python
        with contextlib.suppress(Exception):
            found = [get_object_from_string(name)]
    known = {n for r in registries for n in r.module_dict} | ours.PROVIDERS.keys()
    if not found and (close := get_close_matches(bare, known, 1, 0.8)):
        raise UserError(f"{path}.type='{name}' is not registered. Did you mean '{close[0]}'?")
    return found


def parameters_of(target: Any) -> set[str] | None:
    """Return the keyword arguments of a class or function, or None if it accepts any.

    Where a constructor passes ``**kwargs`` on to its parent's, the parent's count too.
    """
    names: set[str] = set()
    for owner in target.__mro__ if inspect.isclass(target) else (target,):
        if owner in (nn.Module, object):
            break
        function = vars(owner).get('__init__') if inspect.isclass(owner) else owner
        if function is None:
            continue
        try:
            parameters = inspect.signature(function).parameters.values()
        except (TypeError, ValueError):  # written in C
            return None
        names |= {p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
        keywords = next((p.name for p in parameters if p.kind is p.VAR_KEYWORD), None)
        if keywords is None:
            break
        if owner in _KEYWORDS_GO_TO:
            return names | (parameters_of(_KEYWORDS_GO_TO[owner]) or set())
        if not _passes_on(function, keywords):
            return None
    return names - {'self'}


def _passes_on(function: Any, keywords: str) -> bool:
    """Return whether a constructor does nothing with ``**kwargs`` but call its parent's."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError):
        return False
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call)]
    passed = [
        k.value.id
        for call in calls
        if isinstance(call.func, ast.Attribute) and call.func.attr == '__init__'
        for k in call.keywords
        if k.arg is None and isinstance(k.value, ast.Name)
    ]
    uses = [n.id for n in ast.walk(tree) if isinstance(n, ast.Name)]
    return 0 < passed.count(keywords) == uses.count(keywords)


@functools.cache
def _registries(scope: str) -> list[Registry]:
    """Return the registries of a scope, after they have imported what registers in them."""
    try:
        found = vars(importlib.import_module(f'{scope}.registry')).values()
    except ImportError:
        return []
    registries = [r for r in found if isinstance(r, Registry)]
    for registry in registries:
        with contextlib.suppress(ImportError):  # an optional package
            registry.import_from_location()
    return registries


def _refuse_unknown(cfg: Config, prefix: str, keys: Iterable[str], known: Iterable[str]) -> None:
    """Raise an error for the first key that is unknown and not permitted by the config.

    Raises:
        UserError: It begins with the key's path.
    """
    allowed = cfg.get('allow_new') or ()
    for key in keys:
        if key not in known and key[:1] != '_' and prefix + key not in allowed:
            close = did_you_mean(key, known) or f' Known: {listing(sorted(known), 20)}.'
            raise UserError(f'{prefix}{key} is not a known field.{close}')
