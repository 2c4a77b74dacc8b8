"""Refuse what a config says in vain.

A misspelled argument of a class is an error when the class is built, and its library
words it. What is read by name from a dict is not: ``paramwise_cfg.norm_decay_mul`` trains
with another weight decay, without a word. The tables ``READ_BY_...`` have the keys of
such dicts. ``tools/dev/typos.py`` misspells the
fields of all shipped configs, and names what neither a library nor a table refuses.
"""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from mmengine.config import Config

from lm4ve.errors import UserError, brief, check
from lm4ve.runner.accumulation import AUTO
from lm4ve.runner.config.fields import (
    FIELDS,
    dict_at,
    dicts_in,
    refuse_unknown,
    variables_of,
)
from lm4ve.runner.config.schedules import (
    check_lengths,
    check_schedules,
    refuse_rates_without_effect,
)

#: MMEngine's own constructor of optimizers.
_DEFAULT = 'DefaultOptimWrapperConstructor'
_PARAMWISE = 'optim_wrapper.paramwise_cfg'
#: Path of a dict -> the keys that MMEngine reads from it. It ignores all others.
READ_BY_NAME: dict[str, set[str]] = {
    'auto_scale_lr': {'base_batch_size', 'enable'},
    'env_cfg': {'cudnn_benchmark', 'dist_cfg', 'mp_cfg', 'resource_limit', 'tf32'},
    # Read where there are several processes.
    'env_cfg.dist_cfg': {'backend', 'init_backend', 'init_method', 'port', 'timeout'},
}
#: Constructor of optimizers -> the keys that it reads from ``paramwise_cfg``.
_OF_CONSTRUCTORS: dict[str, set[str]] = {
    _DEFAULT: {
        'bias_decay_mult',
        'bias_lr_mult',
        'bypass_duplicate',
        'custom_keys',
        'dcn_offset_lr_mult',
        'dwconv_decay_mult',
        'flat_decay_mult',
        'norm_decay_mult',
    },
    # mmpretrain's and MMSegmentation's.
    'LearningRateDecayOptimWrapperConstructor': {
        'bias_decay_mult',
        'custom_keys',
        'decay_rate',
        'decay_type',
        'flat_decay_mult',
        'layer_decay_rate',
        'norm_decay_mult',
        'num_layers',
    },
}
#: MMAction2's constructor, whose ``paramwise_cfg`` has groups of parameters alone.
_WITHOUT_CUSTOM_KEYS = 'SwinOptimWrapperConstructor'
#: The keys of a group of parameters in ``custom_keys``, and those of optimizers.
_OF_GROUPS = {
    'amsgrad',
    'betas',
    'dampening',
    'decay_mult',
    'eps',
    'lr',
    'lr_mult',
    'momentum',
    'nesterov',
    'weight_decay',
}
_OF_CHECKPOINT_HOOKS = {
    'backend_args',
    'by_epoch',
    'file_client_args',
    'filename_tmpl',
    'greater_keys',
    'interval',
    'less_keys',
    'max_keep_ckpts',
    'out_dir',
    'priority',
    'published_keys',
    'rule',
    'save_begin',
    'save_best',
    'save_last',
    'save_optimizer',
    'save_param_scheduler',
    'type',
}
#: Class, with its scope where others have its name -> the keys that it reads. It takes others
#: without a word, at least until it saves or draws.
READ_BY_CLASS: dict[str, set[str]] = {
    'AtomicCheckpointHook': _OF_CHECKPOINT_HOOKS,
    'CheckpointHook': _OF_CHECKPOINT_HOOKS,
    # VideoMAE's.
    'mmaction.VisionTransformer': {
        'attn_drop_rate',
        'depth',
        'drop_path_rate',
        'drop_rate',
        'embed_dims',
        'img_size',
        'in_channels',
        'init_cfg',
        'init_values',
        'mlp_ratio',
        'norm_cfg',
        'num_frames',
        'num_heads',
        'patch_size',
        'pretrained',
        'qk_scale',
        'qkv_bias',
        'return_feat_map',
        'tubelet_size',
        'type',
        'use_learnable_pos_emb',
        'use_mean_pooling',
    },
    # MMSegmentation's.
    'IoUMetric': {
        'beta',
        'collect_device',
        'format_only',
        'ignore_index',
        'iou_metrics',
        'nan_to_num',
        'output_dir',
        'prefix',
        'type',
    },
    # mmpretrain's and MMAction2's; what follows the first six, their visualizers read.
    'VisualizationHook': {
        'enable',
        'interval',
        'out_dir',
        'priority',
        'show',
        'type',
        'classes',
        'draw_gt',
        'draw_pred',
        'draw_score',
        'fps',
        'rescale_factor',
        'resize',
        'show_frames',
        'show_name',
        'target_resolution',
        'text_cfg',
        'wait_time',
    },
}
#: Field, wherever it is -> the keys that are read from its dict.
READ_BY_FIELD: dict[str, set[str]] = {
    # Of mmpretrain's RandAugment and AutoAugment: arguments of some transforms.
    'hparams': {
        'direction',
        'interpolation',
        'magnitude_range',
        'magnitude_std',
        'pad_val',
        'prob',
        'random_negative_prob',
    },
}
#: MMEngine's default hooks. One under a misspelled name acts beside the default.
_DEFAULT_HOOKS = {
    'checkpoint',
    'logger',
    'param_scheduler',
    'runtime_info',
    'sampler_seed',
    'timer',
}
#: Numbers that are read at the end of an epoch.
READ_LATE = (
    'train_cfg.val_begin',
    'train_cfg.val_interval',
    'default_hooks.checkpoint.interval',
)
#: How alike two names are, of which one is probably the other one misspelled.
_ALIKE = 0.82
_ALIKE_HOOKS = 0.8


def check_config(cfg: Config) -> None:
    """Raise an error for the first field of a config that is without effect or wrong in vain.

    Keys that nothing reads are permitted by a leading ``_``, or by their path in the
    config's ``allow_new``, such as ``allow_new = ['env_cfg.mine']``.

    Args:
        cfg (Config): The config; it stays as it is.

    Raises:
        UserError: It names the field's path, and for an unknown one the closest known
            keys.
    """
    _check_names(cfg)
    for path, node, known in _dicts_with_known_keys(cfg):
        refuse_unknown(cfg, f'{path}.', node.keys() - known, known)
    _check_hooks(cfg)
    _check_language_models(cfg)
    _check_numbers(cfg)
    check_lengths(cfg)
    check_schedules(cfg)
    refuse_rates_without_effect(cfg)


def _check_names(cfg: Config) -> None:
    """Refuse top-level names that are close to a field, and so probably misspelled.

    A config may have other names, which it uses itself, such as ``model_small``.

    Raises:
        UserError: A name is close to a field.
    """
    # 'train_pipeline' is no misspelling of 'tta_pipeline'.
    candidates = FIELDS - {'tta_pipeline'}
    for name in cfg.keys() - FIELDS:
        close = get_close_matches(name, candidates, 1, _ALIKE)
        if close and not name.startswith(f'{close[0]}_'):
            refuse_unknown(cfg, '', {name} - variables_of(cfg), FIELDS)


def _dicts_with_known_keys(
    cfg: Config,
) -> Iterator[tuple[str, Mapping[str, Any], set[str]]]:
    """Yield path, dict and known keys of each dict that the tables have."""
    for path, known in READ_BY_NAME.items():
        node = value_at(cfg, path)
        if isinstance(node, Mapping):
            yield path, node, known
    yield from _settings_of_parameters(cfg)
    for name in FIELDS & cfg.keys():
        for path, node in dicts_in(cfg[name], name):
            kind = node.get('type')
            for table, key in (
                (READ_BY_CLASS, _bare(kind)),
                (READ_BY_CLASS, _scoped(kind, cfg)),
                (READ_BY_FIELD, path.rpartition('.')[2]),
            ):
                if key in table:
                    yield path, node, table[key]


def _settings_of_parameters(
    cfg: Config,
) -> Iterator[tuple[str, Mapping[str, Any], set[str]]]:
    """Yield path, dict and known keys of ``paramwise_cfg`` and each group in it.

    Nothing is known of another constructor's.
    """
    settings = value_at(cfg, _PARAMWISE)
    constructor = _bare(dict_at(cfg, 'optim_wrapper').get('constructor', _DEFAULT))
    if not isinstance(settings, Mapping):
        return
    path = _PARAMWISE
    groups: Any = {}
    if constructor in _OF_CONSTRUCTORS:
        yield path, settings, _OF_CONSTRUCTORS[constructor]
        path = f'{path}.custom_keys'
        groups = settings.get('custom_keys')
    elif constructor == _WITHOUT_CUSTOM_KEYS:
        groups = settings
    for name, group in dict(groups or {}).items():
        if isinstance(group, Mapping):
            yield f'{path}.{name}', group, _OF_GROUPS


def _bare(kind: Any) -> str:
    """Return the name of a class, or of what names it, without its scope."""
    if isinstance(kind, str):
        return kind.rpartition('.')[2]
    return str(getattr(kind, '__name__', ''))


def _scoped(kind: Any, cfg: Config) -> str:
    """Return the name of a class with its scope, or '' of what is no name."""
    if not isinstance(kind, str):
        return ''
    if '.' in kind:
        return kind
    return f'{cfg.get("default_scope")}.{kind}'


def value_at(cfg: Config, path: str) -> Any:
    """Return the value at a path of keys; None if a config does not have it."""
    node: Any = cfg
    for key in path.split('.'):
        if not isinstance(node, (Config, Mapping)):
            return None
        node = node.get(key)
    return node


def _check_hooks(cfg: Config) -> None:
    """Refuse a default hook under a name that is close to one of MMEngine's.

    Raises:
        UserError: There is one.
    """
    for name in dict_at(cfg, 'default_hooks').keys() - _DEFAULT_HOOKS:
        if get_close_matches(name, _DEFAULT_HOOKS, 1, _ALIKE_HOOKS):
            refuse_unknown(cfg, 'default_hooks.', {name}, _DEFAULT_HOOKS)


def _check_language_models(cfg: Config) -> None:
    """Check the configurations of language models in a model, which have a ``model_type``.

    transformers keeps what it does not know as an attribute.

    Raises:
        UserError: A key is close to one that transformers reads.
    """
    for path, node in dicts_in(cfg.get('model'), 'model'):
        if 'model_type' not in node:
            continue
        known = _keys_of_language_model(node['model_type'])
        for key in node.keys() - known:
            # A release may have fields that nothing reads any more.
            if get_close_matches(key, known, 1, _ALIKE):
                refuse_unknown(cfg, f'{path}.', {key}, known)


def _keys_of_language_model(model_type: str) -> set[str]:
    """Return the attributes of transformers' configuration; none if it has no such model."""
    from transformers import CONFIG_MAPPING

    if model_type not in CONFIG_MAPPING:
        return set()
    config = CONFIG_MAPPING[model_type]()
    return {name.lstrip('_') for name in dir(config)} | {*config.attribute_map}


def _check_numbers(cfg: Config) -> None:
    """Check the fields that are read too late for their own errors, and those of our runner.

    Raises:
        UserError: One is of a wrong type.
    """
    for path in READ_LATE:
        value = value_at(cfg, path)
        if isinstance(value, (str, list, tuple, dict)):
            raise UserError(f'{path}={brief(repr(value))} must be a number.')
    counts = value_at(cfg, 'optim_wrapper.accumulative_counts')
    if isinstance(counts, str) and counts != AUTO:
        raise UserError(
            f"optim_wrapper.accumulative_counts='{brief(counts)}' must be a number, or "
            f"'{AUTO}'."
        )
    check('channels_last', cfg.get('channels_last', False), kind=bool)
    check('env_cfg.tf32', value_at(cfg, 'env_cfg.tf32'), kind=(bool, type(None)))
