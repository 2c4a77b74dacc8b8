"""Check the fields of a config against what reads them.

A dict with a ``type`` is read by the class of that name; the table of :mod:`.fields`
has the readers of MMEngine's other dicts. A key that no reader has as an argument, or a
text in the place of a number, is refused.
"""

import inspect
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from mmengine.config import Config
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from lm4ve.errors import UserError, brief, check
from lm4ve.runner.config.classes import classes_named
from lm4ve.runner.config.fields import (
    FIELDS,
    NEEDED_DICTS,
    OPTIONAL_DICTS,
    PARAMWISE,
    READ_BEFORE_BUILDING,
    READERS,
    WORDS,
    Readers,
    dict_at,
    refuse_unknown,
    variables_of,
)
from lm4ve.runner.config.schedules import (
    check_lengths,
    check_schedules,
    refuse_rates_without_effect,
)
from lm4ve.runner.config.unused_blocks import refuse_unused_blocks
from lm4ve.runner.signatures import signature_of, wanted_type

_DEFAULT_CONSTRUCTOR = 'DefaultOptimWrapperConstructor'


def check_config(cfg: Config) -> None:
    """Raise an error for the first field of a config that is unknown, wrong or without effect.

    Unknown are keys that nothing reads. They are permitted by a leading ``_``, or by
    their path in the config's ``allow_new``, such as ``allow_new = ['env_cfg.mine']``.

    Args:
        cfg (Config): The config; it stays as it is.

    Raises:
        UserError: It names the field's path, and for an unknown one the closest known
            keys.
    """
    _check_names(cfg)
    scope = cfg.get('default_scope') or 'mmengine'
    for name in cfg:
        if name in FIELDS:
            _check_is_dict(name, cfg[name])
            _check_node(cfg, cfg[name], name, scope)
    refuse_unused_blocks(cfg)
    _check_precision(cfg)
    check_lengths(cfg)
    check_schedules(cfg)
    refuse_rates_without_effect(cfg)


def _check_names(cfg: Config) -> None:
    """Refuse top-level names that are close to a field, and so probably misspelled.

    A config may have other names, which it uses itself.

    Raises:
        UserError: A name is close to a field.
    """
    # 'train_pipeline' is no misspelling of 'tta_pipeline'.
    candidates = FIELDS - {'tta_pipeline'}
    for name in cfg.keys() - FIELDS:
        close = get_close_matches(name, candidates, 1, 0.82)
        if close and not name.startswith(close[0]):
            refuse_unknown(cfg, '', {name} - variables_of(cfg), FIELDS)


def _check_precision(cfg: Config) -> None:
    """Check the fields of the precision that our runner reads.

    Raises:
        UserError: One is neither True nor False.
    """
    check('channels_last', cfg.get('channels_last', False), kind=bool)
    tf32 = dict_at(cfg, 'env_cfg').get('tf32')
    check('env_cfg.tf32', tf32, kind=(bool, type(None)))


def _check_is_dict(name: str, value: Any) -> None:
    """Refuse a number, a text or a list in a top-level field that MMEngine reads as a dict.

    An object in its place, such as a model that is built already, is accepted.

    Raises:
        UserError: The field has such a value, or None where it may not be None.
    """
    if name in OPTIONAL_DICTS:
        is_wrong = isinstance(value, (str, int, float, list, tuple))
    elif name in NEEDED_DICTS:
        is_wrong = value is None or isinstance(value, (str, int, float, list, tuple))
    else:
        is_wrong = False
    if is_wrong:
        raise UserError(
            f'{name}={brief(repr(value))} must be a dict, as {name}=dict(...).'
        )


def _check_node(cfg: Config, node: Any, path: str, scope: str) -> None:
    """Check a part of the config and everything below it.

    Args:
        cfg (Config): The whole config.
        node: The part: a dict, a list or any other value, which needs no check.
        path (str): The part's path, for errors.
        scope (str): MMEngine's scope, in which types of the part are looked up.

    Raises:
        UserError: See :func:`check_config`.
    """
    if isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            _check_node(cfg, value, f'{path}.{index}', scope)
    if not isinstance(node, Mapping):
        return
    scope = node.get('_scope_') or scope
    classes = _classes_of(node, path, scope)
    if classes:
        readers = Readers(tuple(classes), are_named_by_type=True)
    else:
        readers = READERS.get(path, Readers())
    _check_values(cfg, node, path, readers)
    _check_keys(cfg, node, path, readers)
    _check_sizes(cfg, node, path, classes)
    for key, value in node.items():
        _check_node(cfg, value, f'{path}.{key}', scope)


def _classes_of(node: Mapping[str, Any], path: str, scope: str) -> list[Any]:
    """Return the classes and functions that the ``type`` of a dict may stand for.

    A name may be in several registries. The list is empty if the dict has no type.

    Raises:
        UserError: The type is neither a name nor a class, or a misspelled name.
    """
    type_or_name = node.get('type', '')
    # Among the sizes of an architecture, `type` may be a field of another meaning.
    is_size = 'arch' in path.split('.')
    is_type = isinstance(type_or_name, str) or callable(type_or_name)
    if not is_size and not is_type:
        raise UserError(
            f'{path}.type={brief(repr(type_or_name))} must be the name of a class.'
        )
    if isinstance(type_or_name, str) and type_or_name:
        return classes_named(type_or_name, path, scope)
    if callable(type_or_name):
        return [type_or_name]
    return []


def _check_values(
    cfg: Config, node: Mapping[str, Any], path: str, readers: Readers
) -> None:
    """Check that the values of a dict are of the types of their readers' arguments.

    Raises:
        UserError: All readers with an argument of this name expect another type.
    """
    signatures = [signature_of(target) for target in readers.callables]
    permitted = cfg.get('allow_new') or ()
    for key, value in node.items():
        field = f'{path}.{key}'
        is_word = field in WORDS and value == WORDS[field]
        if field in permitted or is_word:
            continue
        # For each reader: the type that it expects instead, or None if the value will do.
        expected = []
        for signature in signatures:
            if key in signature.parameters:
                expected.append(wanted_type(signature.parameters[key], value))
        # One reader that accepts the value is enough.
        if expected and all(expected):
            raise UserError(f'{field}={brief(repr(value))} must be {expected[0]}.')


def _check_keys(
    cfg: Config, node: Mapping[str, Any], path: str, readers: Readers
) -> None:
    """Refuse the first key of a dict that none of its readers reads.

    Raises:
        UserError: It names the key's path and the closest known keys.
    """
    known = _known_keys(cfg, node, path, readers)
    if known is None:
        return
    unknown = node.keys() - known
    if readers.are_named_by_type:
        unknown.discard('type')
    refuse_unknown(cfg, f'{path}.', unknown, known)


def _known_keys(
    cfg: Config, node: Mapping[str, Any], path: str, readers: Readers
) -> set[str] | None:
    """Return the keys that are read from a dict.

    Args:
        cfg (Config): The whole config.
        node (Mapping): The dict.
        path (str): Its path. A few dicts of MMEngine have rules of their own.
        readers (Readers): Its readers.

    Returns:
        set[str] | None: The keys. None: any key may be read.
    """
    if path == 'optim_wrapper.clip_grad':
        return _keys_of_clipping(node)
    if path == 'optim_wrapper.paramwise_cfg':
        constructor = cfg.optim_wrapper.get('constructor', _DEFAULT_CONSTRUCTOR)
        return PARAMWISE if constructor == _DEFAULT_CONSTRUCTOR else None
    if path == 'optim_wrapper' and 'optimizer' not in node:
        return None  # several optimizers, by a constructor of their own
    if 'model_type' in node:
        return _keys_of_language_model(node)
    known = _keys_of_readers(readers)
    if known is not None and path.endswith('norm_cfg'):
        known.add('requires_grad')  # mmcv's `build_norm_layer`
    return known


def _keys_of_clipping(node: Mapping[str, Any]) -> set[str]:
    """Return the keys of ``optim_wrapper.clip_grad``.

    ``type`` chooses one of torch's two functions; MMEngine passes the other keys to it,
    beside the parameters.
    """
    if node.get('type') == 'value':
        function: Any = clip_grad_value_
    else:
        function = clip_grad_norm_
    arguments = set(signature_of(function).parameters)
    arguments.remove('parameters')
    return {'type', *arguments}


def _keys_of_language_model(node: Mapping[str, Any]) -> set[str] | None:
    """Return the keys of the configuration of a language model, by its ``model_type``.

    Returns:
        set[str] | None: The attributes of transformers' configuration, and those keys of
        ``node`` that are close to none of them. None: transformers has no such model.
    """
    from transformers import CONFIG_MAPPING

    if node['model_type'] not in CONFIG_MAPPING:
        return None
    config = CONFIG_MAPPING[node['model_type']]()
    known = {name.lstrip('_') for name in dir(config)} | set(config.attribute_map)
    # A config.json of a release may have fields that nothing reads any more, so only a
    # key that is close to a known one is taken for a misspelling.
    for key in node:
        if not get_close_matches(key, known, 1, 0.82):
            known.add(key)
    return known


def _keys_of_readers(readers: Readers) -> set[str] | None:
    """Return the keys that classes and functions read as their arguments.

    Returns:
        set[str] | None: The keys. None: any key may be read, because a reader has
        ``**kwargs`` or there is no reader.
    """
    if not readers.callables and not readers.keys:
        return None
    known = set(readers.keys)
    for target in readers.callables:
        signature = signature_of(target)
        if signature.is_open:
            return None
        known |= signature.parameters.keys()
        if inspect.isclass(target):
            known |= _read_before_building(target)
    return known


def _read_before_building(cls: type) -> set[str]:
    """Return the keys that MMEngine reads from the dict of a class before it builds it."""
    keys = set()
    for base, own_keys in READ_BEFORE_BUILDING.items():
        if issubclass(cls, base):
            keys |= own_keys
    return keys


def _check_sizes(
    cfg: Config, node: Mapping[str, Any], path: str, classes: list[Any]
) -> None:
    """Check the sizes in the dict ``arch`` of a backbone of mmpretrain, if it has one.

    mmpretrain's backbones have a table ``arch_zoo`` of architectures and their sizes,
    and ignore sizes with names that are not in it.

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
        refuse_unknown(cfg, f'{path}.arch.', unknown, sizes)
