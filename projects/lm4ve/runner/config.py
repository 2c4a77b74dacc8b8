"""Read a config, merge overrides into it, and check it before anything is built from it.

MMEngine ignores a misspelled key (``env_cfg.cudnn_benchmrk``) or fails on it hours
later (``clip_grad.max_nrom`` in the first step). :func:`check_config` compares the keys
of every dict with the parameters of the class that its ``type`` names, at any depth,
and MMEngine's own dicts with a table.
"""

import ast
import contextlib
import importlib
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper, _ParamScheduler
from mmengine.registry import Registry, init_default_scope
from mmengine.runner import (
    EpochBasedTrainLoop,
    FlexibleRunner,
    IterBasedTrainLoop,
    LogProcessor,
    Runner,
    TestLoop,
    ValLoop,
)
from mmengine.utils import get_object_from_string, import_modules_from_strings
from mmengine.utils.dl_utils import set_multi_processing
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.utils.data import DataLoader

from lm4ve import registry as ours
from lm4ve.errors import UserError, brief, check, did_you_mean, listing
from lm4ve.runner.signatures import signature_of, wanted_type
from lm4ve.zoo import all_models, find_config

#: Before a field of ``--cfg-options`` that is new to the config.
ALLOW_NEW = 'allow_new.'
ENDS = ('total_steps', 'T_max', 'end')
_ONE_CYCLE = ('OneCycleLR', 'OneCycleParamScheduler')
#: Names of what follows a config's ``image_size``, and in which fields.
_SIZES = ('scale', 'crop_size', 'image_size', 'img_size')
_SIZED = ('model', '_dataloader', '_pipeline')
#: Top-level fields that MMEngine's runners and the commands read.
FIELDS = {
    *inspect.signature(Runner).parameters,
    *inspect.signature(FlexibleRunner).parameters,
    *(
        'activation_checkpointing',
        'allow_new',
        'compile',
        'custom_imports',
        'image_size',
    ),
    *(
        'efficient_conv_bn_eval',
        'find_unused_parameters',
        'init_weights_for_test_or_val',
    ),
    *('model_wrapper_cfg', 'runner_type', 'sync_bn', 'tta_model', 'tta_pipeline'),
}
#: Top-level fields that are dicts, and those of them that may not be None.
_NEEDED = {'env_cfg', 'model'}
_DICTS = {
    *_NEEDED,
    *(
        'train_dataloader',
        'val_dataloader',
        'test_dataloader',
        'train_cfg',
        'val_cfg',
        'test_cfg',
    ),
    *(
        'optim_wrapper',
        'auto_scale_lr',
        'default_hooks',
        'data_preprocessor',
        'randomness',
    ),
    *('log_processor', 'visualizer', 'custom_imports'),
}
_PARAMWISE = {
    *(
        'custom_keys',
        'bias_lr_mult',
        'bias_decay_mult',
        'norm_decay_mult',
        'dwconv_decay_mult',
    ),
    *('dcn_offset_lr_mult', 'flat_decay_mult', 'bypass_duplicate'),
}
#: Path of a dict without ``type`` -> what reads it: keys, or functions with these
#: parameters.
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
        f'{s}_dataloader': (DataLoader, {'num_batch_per_epoch'})
        for s in ('train', 'val', 'test')
    },
    'optim_wrapper': (OptimWrapper,),
}
#: Class -> keys that are read from its config before it is built.
_BESIDES: dict[type, set[str]] = {
    Hook: {'priority'},
    _ParamScheduler: {'convert_to_iter_based'},
    OptimWrapper: {'optimizer', 'constructor', 'paramwise_cfg'},
}

#: Stands for a field that a config does not have; None is a value.
_ABSENT = object()


def read_config(
    path: str | Path, options: dict[str, Any] | None = None, set_scope: bool = True
) -> Config:
    """Read a config file, merge overrides into it and make its scope the default.

    Args:
        path (str | Path): The file, or a name (:func:`lm4ve.zoo.find_config`).
        options (dict, optional): Overrides by dotted field name, as
            ``--cfg-options`` gives them.
        set_scope (bool): Make the config's ``default_scope`` MMEngine's current
            one, so that its types are found. A Runner does it by itself.

    Returns:
        Config: The whole config.

    Raises:
        UserError: The file does not exist, is no config, has an error, or inherits one
            of a package that is not installed.
    """
    if not (path := find_config(path)).is_file():
        close = did_you_mean(str(path), all_models()) or ' See: lm4ve list.'
        raise UserError(f"The config '{path}' does not exist.{close}")
    try:
        cfg = Config.fromfile(path)
    except Exception as e:
        advice = ' An extra of lm4ve may be missing, as image.' * isinstance(
            e, ImportError
        )
        line = f': {e.text.strip()}' if isinstance(e, SyntaxError) and e.text else ''
        raise UserError(
            f"The config '{path}' cannot be read: {e}{line}.{advice}"
        ) from e
    if options:
        merge_options(cfg, options)
    if set_scope:
        init_default_scope(cfg.get('default_scope') or 'mmengine')
    return cfg


def read_checked_config(
    path: str | Path, options: dict[str, Any] | None = None, set_scope: bool = True
) -> Config:
    """Read a config as :func:`read_config` does, and check it.

    Raises:
        UserError: See :func:`read_config` and :func:`check_config`.
    """
    cfg = read_config(path, options, set_scope)
    check_config(cfg)
    return cfg


def merge_options(cfg: Config, options: dict[str, Any]) -> None:
    """Merge overrides into a config; raise an error for one that would have no effect.

    Where ``train_cfg.max_epochs`` is overridden and no schedule is, schedules that
    ended with the last epoch follow it. Where a config has a field ``image_size``, its
    transforms and its model follow that one. The optimizer's ``lr`` and the ``eta_max``
    of a one-cycle schedule follow each other.

    Args:
        cfg (Config): Changed in place.
        options (dict): Values by dotted field. A leading ``allow_new.`` permits a field
            that is new to the config.

    Raises:
        UserError: There is no such field.
    """
    fields = {name.removeprefix(ALLOW_NEW): value for name, value in options.items()}
    variables = variables_of(cfg)
    for field in fields:
        first = field.partition('.')[0]
        if field not in options:
            cfg.allow_new = [*(cfg.get('allow_new') or ()), field]
        elif first in variables:
            raise UserError(
                f"{field}: '{first}' is used up when the config file is read; override the field "
                f'that holds it, or write allow_new.{field}.'
            )
        else:
            _refuse_unknown(cfg, '', {first} - FIELDS - cfg.keys(), FIELDS | cfg.keys())
    epochs = _max_epochs(cfg)
    size = cfg.get('image_size')
    rate = _rate_of_optimizer(cfg)
    for (
        field,
        value,
    ) in fields.items():  # in their order: at once, a dict would undo what is in it
        _refuse_scalar_for_part(cfg, field, value)
        if _is_replaced(cfg, field, value):
            value = dict(value, _delete_=True)  # MMEngine's word for a replacement
        try:
            cfg.merge_from_dict({field: value})
        except (TypeError, KeyError, ValueError, AttributeError) as e:
            reason = str(e.args[0] if e.args else e)
            raise UserError(
                f'{field} cannot be overridden: {brief(reason, 200)}'
            ) from e
    _import_custom(cfg)
    for name in cfg if size is not None else ():
        if name.endswith(_SIZED):
            _follow_size(cfg[name], size, cfg.image_size)
    if epochs is not None and not any(
        field.startswith('param_scheduler') for field in fields
    ):
        _follow_epochs(cfg, epochs, _max_epochs(cfg))
    if rate is not None:
        _follow_rate(cfg, rate)


def _value_at(cfg: Config, field: str) -> Any:
    """Return the value of a dotted field, or :data:`_ABSENT` if the config has none."""
    node: Any = cfg
    for key in field.split('.'):
        if isinstance(node, (list, tuple)) and key.isdecimal() and int(key) < len(node):
            node = node[int(key)]
        elif isinstance(node, (Mapping, Config)) and key in node:
            node = node[key]
        else:
            return _ABSENT
    return node


def _is_replaced(cfg: Config, field: str, value: Any) -> bool:
    """Return whether a dict comes in the place of something else, and cannot be merged into it.

    So it is with ``model.backbone.arch``, which may be a name or a dict of sizes.
    """
    before = _value_at(cfg, field)
    return _is_dict(value) and before is not _ABSENT and not _is_dict(before)


def _refuse_scalar_for_part(cfg: Config, field: str, value: Any) -> None:
    """Refuse a text or a number in the place of a dict that names a class.

    Raises:
        UserError: It names the class that the dict has.
    """
    before = _value_at(cfg, field)
    is_scalar = isinstance(value, (str, int, float))
    if is_scalar and _is_dict(before) and 'type' in before:
        raise UserError(
            f'{field}={brief(repr(value))} must be a dict, as the '
            f"dict(type='{before['type']}', ...) of the config, or None."
        )


def _import_custom(cfg: Config) -> None:
    """Import what ``custom_imports`` names, which an override may have changed.

    Raises:
        UserError: It names no modules, or one that cannot be imported.
    """
    imports = cfg.get('custom_imports')
    if not imports:
        return
    try:
        import_modules_from_strings(**imports)
    except (TypeError, ImportError) as e:
        raise UserError(
            f'custom_imports={brief(repr(imports))} cannot be imported: {e}. Fix: '
            "custom_imports=dict(imports=['package.module'])."
        ) from e


def _max_epochs(cfg: Config) -> Any:
    training = cfg.get('train_cfg')
    return training.get('max_epochs') if isinstance(training, Mapping) else None


def _rate_of_optimizer(cfg: Config) -> Any:
    """Return the learning rate that a config gives its only optimizer, or None."""
    wrapper = cfg.get('optim_wrapper')
    optimizer = wrapper.get('optimizer') if isinstance(wrapper, Mapping) else None
    return optimizer.get('lr') if isinstance(optimizer, Mapping) else None


def _one_cycle(cfg: Config) -> Any:
    """Return the one-cycle schedule that sets the rate from the first step on, or None."""
    for _, schedule in _schedules(cfg):
        name = str(schedule.get('type')).rpartition('.')[2]
        if name in _ONE_CYCLE and not schedule.get('begin'):
            return schedule
    return None


def _follow_rate(cfg: Config, before: Any) -> None:
    """Keep the optimizer's rate and the peak of a one-cycle schedule equal, as they were.

    Of the two, the schedule's alone counts.
    """
    schedule = _one_cycle(cfg)
    after = _rate_of_optimizer(cfg)
    peak = None if schedule is None else schedule.get('eta_max')
    if not (_is_number(after) and _is_number(peak)):
        return
    if after != before and peak == before:
        schedule['eta_max'] = after
    elif peak != before and after == before:
        cfg.optim_wrapper.optimizer.lr = peak


def _refuse_rates_without_effect(cfg: Config) -> None:
    """Refuse learning rates that a one-cycle schedule replaces.

    MMEngine's ``OneCycleLR`` gives all parameters rates between ``eta_max /
    div_factor`` and ``eta_max``, whatever the optimizer has.

    Raises:
        UserError: It names the field that would have no effect.
    """
    schedule = _one_cycle(cfg)
    wrapper = cfg.get('optim_wrapper')
    if schedule is None or not isinstance(wrapper, Mapping):
        return
    peak = schedule.get('eta_max')
    rate = _rate_of_optimizer(cfg)
    reason = 'has no effect: OneCycleLR sets the learning rate of all parameters'
    if _is_number(rate) and _is_number(peak) and rate != peak:
        raise UserError(
            f'optim_wrapper.optimizer.lr={rate} {reason}, up to param_scheduler.eta_max={peak}. '
            'Fix: set param_scheduler.eta_max, and the same lr or none.'
        )
    if (cfg.get('auto_scale_lr') or {}).get('enable'):
        raise UserError(
            f'auto_scale_lr.enable=True {reason}. Fix: scale param_scheduler.eta_max={peak} by the '
            'batch size yourself.'
        )
    for path, factor in _rate_factors(
        wrapper.get('paramwise_cfg'), 'optim_wrapper.paramwise_cfg'
    ):
        if factor != 1:
            raise UserError(
                f'{path}={factor} {reason}. Fix: leave it out, or take another schedule, such as '
                'CosineAnnealingLR.'
            )


def _rate_factors(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield the paths and values of what multiplies the rate of some parameters."""
    for key, value in node.items() if isinstance(node, Mapping) else ():
        if isinstance(value, Mapping):
            yield from _rate_factors(value, f'{path}.{key}')
        elif key in ('lr', 'layer_decay_rate') or key.endswith('lr_mult'):
            yield f'{path}.{key}', value


def _schedules(cfg: Config) -> list[tuple[str, Any]]:
    """Return the path and the fields of each schedule of a config with one optimizer."""
    schedulers = cfg.get('param_scheduler')
    if isinstance(schedulers, list):
        return [
            (f'param_scheduler.{i}', s) for i, s in enumerate(schedulers) if _is_dict(s)
        ]
    return [('param_scheduler', schedulers)] if _is_dict(schedulers) else []


def _is_dict(node: Any) -> bool:
    return isinstance(node, Mapping)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float))


def _follow_epochs(cfg: Config, before: Any, after: Any) -> None:
    """Make the schedules that ended with the last epoch end with the new last one."""
    if not (_is_number(before) and _is_number(after)):
        return  # the check of the config says so
    for _, schedule in _schedules(cfg):
        if not schedule.get('by_epoch', True):
            continue
        begin = schedule.get('begin', 0)
        for key in ENDS:
            if schedule.get(key) == before:
                schedule[key] = after
            elif schedule.get(key) and schedule[key] == before - begin:
                schedule[key] = after - begin


def _check_lengths(cfg: Config) -> None:
    """Check that a training has steps.

    Raises:
        UserError: It has none.
    """
    training = cfg.get('train_cfg')
    for name in ('max_epochs', 'max_iters'):
        length = training.get(name) if isinstance(training, Mapping) else None
        if _is_number(length):
            check(f'train_cfg.{name}', length, least=1)


def _check_schedules(cfg: Config) -> None:
    """Check that each schedule begins before it ends, or before the training does.

    Raises:
        UserError: It names the schedule, the training's length and what to change.
    """
    training = cfg.get('train_cfg')
    training = training if isinstance(training, Mapping) else {}
    for path, schedule in _schedules(cfg):
        unit = 'epoch' if schedule.get('by_epoch', True) else 'iter'
        begin = schedule.get('begin') or 0
        length: Any = training.get(f'max_{unit}s')
        if not _is_number(begin) or not begin:
            continue
        if _is_number(length) and begin >= length:
            raise UserError(
                f'train_cfg.max_{unit}s={length}: training ends before {path} '
                f'({schedule.get("type")}) begins, after {unit} {begin}. Fix: train longer, or '
                f'let it begin earlier: {path}.begin=0.'
            )
        end = schedule.get('end')
        if _is_number(end) and begin >= end:
            raise UserError(f'{path}.begin={begin} must be below {path}.end={end}.')


def _follow_size(node: Any, before: Any, after: Any) -> None:
    """Give transforms and model the new size where they had the old one."""
    if isinstance(node, dict):
        for key in _SIZES:
            if node.get(key) in (before, [before] * 2, (before, before)):
                node[key] = (
                    after if node[key] == before else type(node[key])([after] * 2)
                )
        node = list(node.values())
    for value in node if isinstance(node, (list, tuple)) else ():
        _follow_size(value, before, after)


def check_config(cfg: Config) -> None:
    """Raise an error for the first field of a config that would have no effect.

    A text where its parameter takes only numbers is refused, too.

    ``allow_new = ['env_cfg.mine']`` in a config permits a field, as does a leading
    ``_``.

    Raises:
        UserError: It names the field's path, and for an unknown one the closest known
            keys.
    """
    for name in cfg.keys() - FIELDS:
        # 'train_pipeline' is no misspelling of 'tta_pipeline'.
        close = get_close_matches(name, FIELDS - {'tta_pipeline'}, 1, 0.82)
        if close and not name.startswith(close[0]):
            _refuse_unknown(cfg, '', {name} - variables_of(cfg), FIELDS)
    for name in cfg:
        if name not in FIELDS:
            continue
        _check_kind(name, cfg[name])
        _check(cfg, cfg[name], name, cfg.get('default_scope') or 'mmengine')
    _check_lengths(cfg)
    _check_schedules(cfg)
    _refuse_rates_without_effect(cfg)


def _check_kind(name: str, value: Any) -> None:
    """Check that a top-level field which MMEngine reads as a dict is one.

    Raises:
        UserError: It is something else.
    """
    is_object = value is not None and not isinstance(
        value, (str, int, float, list, tuple)
    )
    if name not in _DICTS or isinstance(value, dict) or is_object:
        return
    if value is None and name not in _NEEDED:
        return
    raise UserError(f'{name}={brief(repr(value))} must be a dict, as {name}=dict(...).')


def variables_of(cfg: Config) -> set[str]:
    """Return the top-level names of a config that only its own Python files read."""
    text = cfg.text or ''
    used = set(re.findall(r"""_base_(?:\.|\[['"])(\w+)""", text))
    # Each file's text comes after a line with its path.
    parts = re.split(r'(?m)^(\S+\.(?:py|json|ya?ml))$', text)
    for path, code in zip(parts[1::2], parts[2::2], strict=True):
        is_piece = (
            '_base_' in Path(path).parts
        )  # offers variables; not all need be used
        for node in ast.walk(ast.parse(code if path.endswith('.py') else '')):
            if isinstance(node, ast.Name) and (
                is_piece or isinstance(node.ctx, ast.Load)
            ):
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
    classes = _classes_of(node, path, scope)
    _check_values(cfg, node, path, classes or _OWN.get(path, ()))
    _check_keys(cfg, node, path, classes)
    _check_sizes(cfg, node, path, classes)
    for key, value in node.items():
        _check(cfg, value, f'{path}.{key}', scope)


def _classes_of(node: Mapping[str, Any], path: str, scope: str) -> list[Any]:
    """Return what ``type`` of a dict may stand for; nothing if it has none.

    Raises:
        UserError: It is not the name of a class.
    """
    kind = node.get('type', '')
    # Sizes of an architecture may have a field of this name.
    is_size = 'arch' in path.split('.')
    if not is_size and not isinstance(kind, str) and not callable(kind):
        raise UserError(f'{path}.type={brief(repr(kind))} must be the name of a class.')
    if not kind:
        return []
    return _find(kind, path, scope)


def _check_keys(
    cfg: Config, node: Mapping[str, Any], path: str, classes: list[Any]
) -> None:
    """Check that each key of a dict is read.

    Raises:
        UserError: One is unknown.
    """
    known = _known_keys(cfg, node, path, classes)
    if known is None:
        return
    unknown = node.keys() - known
    if classes:
        unknown = unknown - {'type'}
    if unknown:
        _refuse_unknown(cfg, f'{path}.', unknown, known)


def _check_sizes(
    cfg: Config, node: Mapping[str, Any], path: str, classes: list[Any]
) -> None:
    """Check a dict ``arch`` of mmpretrain's backbones, which ignore what their table lacks.

    Raises:
        UserError: A size is in no row of the table.
    """
    arch = node.get('arch')
    if not isinstance(arch, Mapping):
        return
    sizes: set[str] = set()
    for cls in classes:
        for row in getattr(cls, 'arch_zoo', {}).values():
            sizes |= set(row)
    unknown = arch.keys() - sizes
    if sizes and unknown:
        _refuse_unknown(cfg, f'{path}.arch.', unknown, sizes)


def _check_values(
    cfg: Config, node: Mapping[str, Any], path: str, readers: Iterable[Any]
) -> None:
    """Check that values are of the types that their parameters name.

    Raises:
        UserError: One is of a type that no reader takes.
    """
    signatures = [
        signature_of(reader) for reader in readers if not isinstance(reader, set)
    ]
    permitted = cfg.get('allow_new') or ()
    for key, value in node.items():
        field = f'{path}.{key}'
        if field in permitted:
            continue
        wanted = []
        for signature in signatures:
            if key in signature.parameters:
                wanted.append(wanted_type(signature.parameters[key], value))
        if wanted and all(wanted):
            raise UserError(f'{field}={brief(repr(value))} must be {wanted[0]}.')


def _known_keys(
    cfg: Config, node: Mapping[str, Any], path: str, classes: Iterable[Any]
) -> set[str] | None:
    """Return the keys that are read from a dict, or None if any may be."""
    sources = classes or _OWN.get(path, ())
    if path == 'optim_wrapper.clip_grad':
        sources = [
            {'type'},
            clip_grad_value_ if node.get('type') == 'value' else clip_grad_norm_,
        ]
    elif path == 'optim_wrapper.paramwise_cfg':
        default = 'DefaultOptimWrapperConstructor'
        return (
            _PARAMWISE
            if cfg.optim_wrapper.get('constructor', default) == default
            else None
        )
    elif path == 'optim_wrapper' and 'optimizer' not in node:
        return None  # several optimizers, by a constructor of their own
    elif 'model_type' in node:
        from transformers import CONFIG_MAPPING

        if node['model_type'] not in CONFIG_MAPPING:
            return None
        config = CONFIG_MAPPING[node['model_type']]()
        known = {*(name.lstrip('_') for name in dir(config)), *config.attribute_map}
        # Files of models, of which releases are made, have fields that nothing reads
        # any more.
        return known | {k for k in node if not get_close_matches(k, known, 1, 0.82)}
    known = (
        {'requires_grad'} if path.endswith('norm_cfg') else set()
    )  # mmcv's `build_norm_layer`
    for source in sources:
        if isinstance(source, set):
            known |= source
            continue
        signature = signature_of(source)
        if signature.is_open:
            return None
        known |= signature.parameters.keys()
        if inspect.isclass(source):
            known.update(
                *(keys for base, keys in _BESIDES.items() if issubclass(source, base))
            )
    return known if sources else None


def _find(name: Any, path: str, scope: str) -> list[Any]:
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
    registries: list[Registry] = []
    for each in (prefix,) if prefix else (scope, 'mmengine'):
        with contextlib.suppress(ImportError):  # no scope
            found = vars(importlib.import_module(f'{each}.registry')).values()
            registries += [r for r in found if isinstance(r, Registry)]
    for registry in registries:
        with contextlib.suppress(ImportError):  # an optional package
            registry.import_from_location()
    classes = [r.module_dict[bare] for r in registries if bare in r.module_dict]
    if not classes and '.' in prefix:  # a path in Python
        with contextlib.suppress(Exception):
            classes = [get_object_from_string(name)]
    known = {n for r in registries for n in r.module_dict} | ours.PROVIDERS.keys()
    if not classes and (close := get_close_matches(bare, known, 1, 0.8)):
        raise UserError(
            f"{path}.type='{name}' is not registered. Did you mean '{close[0]}'?"
        )
    return classes


def _refuse_unknown(
    cfg: Config, prefix: str, keys: Iterable[str], known: Iterable[str]
) -> None:
    """Raise an error for the first unknown key that is not permitted by the config.

    Raises:
        UserError: It begins with the key's path.
    """
    for key in sorted(keys):
        if key[:1] != '_' and prefix + key not in (cfg.get('allow_new') or ()):
            close = did_you_mean(key, known) or f' Known: {listing(sorted(known), 20)}.'
            raise UserError(f'{prefix}{key} is not a known field.{close}')
