"""Names within a config's fields that MMEngine takes one by one.

It passes over a misspelled one without a word (``env_cfg.cudnn_benchmrk``), or stumbles
over it hours later (``optim_wrapper.clip_grad.max_nrom`` in the first step,
``default_hooks.checkpoint.intervals`` when it saves).
"""

import inspect
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.runner import LogProcessor, Runner
from mmengine.utils.dl_utils import set_multi_processing
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.utils.data import DataLoader

from lm4ve.errors import UserError, brief, did_you_mean

_LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
_DEFAULT_HOOKS = (
    *('timer', 'logger', 'param_scheduler', 'checkpoint', 'sampler_seed', 'runtime_info'),
    'visualization',
)
_THREE = ('dataloader', 'cfg', 'evaluator')
_CHECKPOINT_HOOKS = ('CheckpointHook', 'AtomicCheckpointHook')
_PARAMWISE = (
    *('custom_keys', 'bias_lr_mult', 'bias_decay_mult', 'norm_decay_mult', 'dwconv_decay_mult'),
    *('dcn_offset_lr_mult', 'flat_decay_mult', 'bypass_duplicate'),
)
#: Fields that hold dicts; of a config in Python some may be built already.
_DICTS = (
    *('model', 'train_cfg', 'val_cfg', 'test_cfg', 'optim_wrapper', 'default_hooks', 'env_cfg'),
    *('randomness', 'visualizer', 'log_processor', 'auto_scale_lr', *_LOADERS),
)
_NO_DICTS = (bool, int, float, str, list, tuple)
#: Whole numbers -> the least; a field that is missing or None is left alone.
_NUMBERS = {
    **{f'{field}.batch_size': 1 for field in _LOADERS},
    **{f'{field}.num_workers': 0 for field in _LOADERS},
    **{f'train_cfg.{name}': 1 for name in ('max_epochs', 'max_iters', 'val_interval')},
    'randomness.seed': 0,
}


def check_nested_fields(cfg: Config) -> None:
    """Refuse names that nobody reads, and values of another kind than MMEngine takes.

    ``allow_new = ['env_cfg.mine']`` in a config, or ``allow_new.env_cfg.mine=1`` among
    ``--cfg-options``, says that a name is meant.

    Raises:
        UserError: It names the place and the closest names.
    """
    for name in _DICTS:
        if isinstance(cfg.get(name), _NO_DICTS):
            raise UserError(f'{name}={brief(cfg[name])} must be a dict. Fix: correct it.')
    for name in ('work_dir', 'load_from'):
        if not isinstance(cfg.get(name), str | None):
            raise UserError(f'{name}={brief(cfg[name])} must be a path. Fix: correct it.')
    _check_parts(cfg)
    for place, least in _NUMBERS.items():
        field, _, name = place.partition('.')
        value = _dict(cfg, field).get(name)
        if value is not None and (type(value) is not int or value < least):
            raise UserError(
                f'{place}={brief(value)} must be a whole number from {least}. Fix: correct it.'
            )
    allowed = allowed_names(cfg)
    for place, node, known in _places(cfg):
        for name in node:
            if name[:1] != '_' and name not in known and f'{place}.{name}' not in allowed:
                raise UserError(
                    f"{place}.{name}: nobody reads '{name}' there.{did_you_mean(name, known)} "
                    f'Fix: correct it; there may be {", ".join(sorted(known))}.'
                )


def _check_parts(cfg: Config) -> None:
    """Look at what fields are made of: hooks, data sets, the rate, and fields in threes.

    Raises:
        UserError: It names the place.
    """
    if not isinstance(cfg.get('custom_hooks'), list | tuple | None):
        raise UserError(f'custom_hooks={brief(cfg.custom_hooks)} must be a list. Fix: correct it.')
    if isinstance(cfg.get('param_scheduler'), bool | int | float | str):
        raise UserError(
            f'param_scheduler={brief(cfg.param_scheduler)} must be a dict or a list of them. Fix: '
            'correct it.'
        )
    if not isinstance(cfg.get('compile', False), bool | Mapping):
        raise UserError(
            f'compile={brief(cfg.compile)} must be True, False or a dict. Fix: correct it.'
        )
    parts = {f'default_hooks.{k}': v for k, v in _dict(cfg, 'default_hooks').items()}
    parts |= {f'{field}.dataset': _dict(cfg, field).get('dataset') for field in _LOADERS}
    for place, value in parts.items():
        if isinstance(value, bool | int | float | str):
            raise UserError(f'{place}={brief(value)} must be a dict. Fix: correct it.')
    for field in _LOADERS:
        _check_loader(field, _dict(cfg, field))
    for name, hook in _dict(cfg, 'default_hooks').items():
        if isinstance(hook, Mapping) and _type(hook) in _CHECKPOINT_HOOKS:
            interval = hook.get('interval', -1)
            if type(interval) is not int or (interval < 1 and interval != -1):
                raise UserError(
                    f'default_hooks.{name}.interval={brief(interval)} must be a whole number from '
                    '1, or -1 for no checkpoints but the last. Fix: correct it.'
                )
    rate = _dict(_dict(cfg, 'optim_wrapper'), 'optimizer').get('lr', 0)
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate < math.inf:
        raise UserError(
            f'optim_wrapper.optimizer.lr={brief(rate)} must be a number from 0. Fix: correct it.'
        )
    level = cfg.get('log_level', 'INFO')
    if not isinstance(level, int) and level not in logging.getLevelNamesMapping():
        known = sorted(logging.getLevelNamesMapping())
        raise UserError(
            f'log_level={brief(level)} must be one of {", ".join(known)}. Fix: correct it.'
        )
    for three in ([f'{stage}_{part}' for part in _THREE] for stage in ('val', 'test')):
        missing = [name for name in three if cfg.get(name) is None]
        if 0 < len(missing) < 3:
            raise UserError(
                f'{", ".join(three)} belong together, and {" and ".join(missing)} is missing. Fix: '
                'set all of them, or all to None.'
            )


def _check_loader(field: str, loader: Mapping[str, Any]) -> None:
    """Refuse a part of a data set that holds nothing.

    Raises:
        UserError: It names the place.
    """
    indices = _dict(loader, 'dataset').get('indices')
    if isinstance(indices, bool) or (indices is not None and indices in (0, [], ())):
        raise UserError(
            f'{field}.dataset.indices={brief(indices)} leaves no sample. Fix: set the number of '
            'samples, or a list of their indices.'
        )


def allowed_names(cfg: Config) -> tuple[str, ...]:
    """Return the fields that a config says are meant.

    Raises:
        UserError: ``allow_new`` is no list.
    """
    found = cfg.get('allow_new') or ()
    if not isinstance(found, list | tuple):
        raise UserError(f'allow_new={brief(found)} must be a list of names. Fix: correct it.')
    return tuple(map(str, found))


def _places(cfg: Config) -> Iterator[tuple[str, Mapping[str, Any], Iterable[str]]]:
    """Yield places, what they hold, and the names that are read there."""
    env = _dict(cfg, 'env_cfg')
    yield 'env_cfg', env, {'cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit'}
    yield 'env_cfg.mp_cfg', _dict(env, 'mp_cfg'), _arguments(set_multi_processing)
    yield 'randomness', _dict(cfg, 'randomness'), _arguments(Runner.set_randomness)
    yield 'auto_scale_lr', _dict(cfg, 'auto_scale_lr'), {'enable', 'base_batch_size'}
    processor = _dict(cfg, 'log_processor')
    if _type(processor) in ('', LogProcessor.__name__):
        yield 'log_processor', processor, _arguments(LogProcessor) | {'type'}
    for field in _LOADERS:
        yield field, _dict(cfg, field), _arguments(DataLoader) | {'num_batch_per_epoch'}
    wrapper = _dict(cfg, 'optim_wrapper')
    clip = _dict(wrapper, 'clip_grad')
    function = clip_grad_value_ if clip.get('type') == 'value' else clip_grad_norm_
    yield 'optim_wrapper.clip_grad', clip, _arguments(function) | {'type'}
    constructor = str(wrapper.get('constructor', DefaultOptimWrapperConstructor.__name__))
    if constructor.rpartition('.')[2] == DefaultOptimWrapperConstructor.__name__:
        yield 'optim_wrapper.paramwise_cfg', _dict(wrapper, 'paramwise_cfg'), _PARAMWISE
    hooks = _dict(cfg, 'default_hooks')
    for name, hook in hooks.items():
        if isinstance(hook, Mapping) and 'type' not in hook:
            yield 'default_hooks', {name: hook}, set(_DEFAULT_HOOKS) - {name}
        elif isinstance(hook, Mapping) and _type(hook) in _CHECKPOINT_HOOKS:
            known = _arguments(CheckpointHook) | _arguments(Runner.save_checkpoint)
            yield f'default_hooks.{name}', hook, known | {'type', 'priority'}


def _dict(node: Any, name: str) -> Mapping[str, Any]:
    """Return what a field holds if it is a dict, else an empty one."""
    found = node.get(name)
    return found if isinstance(found, Mapping) else {}


def _type(node: Mapping[str, Any]) -> str:
    return str(node.get('type', '')).rpartition('.')[2]


def _arguments(function: Callable[..., Any]) -> set[str]:
    """Return the names that a function, or a class when it is built, takes."""
    names = inspect.signature(function).parameters.values()
    kinds = inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL
    own = {'self', 'parameters', 'distributed'}
    return {p.name for p in names if p.kind not in kinds} - own
