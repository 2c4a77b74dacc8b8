"""Merge the overrides of ``--cfg-options`` into a config.

An override that would have no effect raises an error. Fields that depend on an
overridden one follow it (:mod:`.following`).
"""

from collections.abc import Mapping
from typing import Any

from mmengine.config import Config
from mmengine.utils import import_modules_from_strings

from lm4ve.errors import UserError, brief
from lm4ve.runner.config.fields import FIELDS, dict_at, refuse_unknown, variables_of
from lm4ve.runner.config.following import follow_epochs, follow_rate, follow_size
from lm4ve.runner.config.schedules import rate_of_optimizer

#: Prefix in ``--cfg-options`` of a field that is new to the config.
ALLOW_NEW = 'allow_new.'
#: The value of a field that a config does not have. (None may be a field's value.)
_ABSENT = object()


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
    fields = _check_fields(cfg, options)
    epochs = dict_at(cfg, 'train_cfg').get('max_epochs')
    image_size = cfg.get('image_size')
    rate = rate_of_optimizer(cfg)
    # One by one, in their order: merged at once, an override of a dict would undo one of a
    # field in it.
    for field, value in fields.items():
        _merge(cfg, field, value)
    _import_custom(cfg)
    follow_size(cfg, image_size)
    if not any(field.startswith('param_scheduler') for field in fields):
        follow_epochs(cfg, epochs, dict_at(cfg, 'train_cfg').get('max_epochs'))
    follow_rate(cfg, rate)


def _check_fields(cfg: Config, options: dict[str, Any]) -> dict[str, Any]:
    """Check the top-level name of each field, and record in the config which fields are new.

    Args:
        cfg (Config): Fields with the prefix ``allow_new.`` are added to its
            ``allow_new``.
        options (dict): Values by dotted field.

    Returns:
        dict: The options without ``allow_new.``.

    Raises:
        UserError: A field is unknown, or is a variable of the config's own files.
    """
    variables = variables_of(cfg)
    known = FIELDS | cfg.keys()
    fields = {}
    for option, value in options.items():
        field = option.removeprefix(ALLOW_NEW)
        fields[field] = value
        if option != field:
            cfg.allow_new = [*(cfg.get('allow_new') or ()), field]
            continue
        first = field.partition('.')[0]
        if first in variables:
            raise UserError(
                f"{field}: '{first}' is used up when the config file is read; override the field "
                f'that holds it, or write allow_new.{field}.'
            )
        if first not in known:
            refuse_unknown(cfg, '', {first}, known)
    return fields


def _merge(cfg: Config, field: str, value: Any) -> None:
    """Merge one override into a config.

    A dict updates the dict that the config has; any other value replaces the old one.

    Raises:
        UserError: The field cannot be reached, or a scalar would replace a dict that
            names a class.
    """
    before = _value_at(cfg, field)
    _refuse_scalar_for_part(field, value, before)
    # For example, a dict of sizes replaces a name in `model.backbone.arch`.
    is_replacement = before is not _ABSENT and not isinstance(before, Mapping)
    if isinstance(value, Mapping) and is_replacement:
        value = dict(value, _delete_=True)  # MMEngine's word for a replacement
    try:
        cfg.merge_from_dict({field: value})
    except (TypeError, KeyError, ValueError, AttributeError) as e:
        reason = str(e.args[0] if e.args else e)
        raise UserError(f'{field} cannot be overridden: {brief(reason, 200)}') from e


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


def _refuse_scalar_for_part(field: str, value: Any, before: Any) -> None:
    """Refuse a text or a number in the place of a dict that names a class.

    Raises:
        UserError: It names the class that the dict has.
    """
    is_scalar = isinstance(value, (str, int, float))
    if is_scalar and isinstance(before, Mapping) and 'type' in before:
        raise UserError(
            f'{field}={brief(repr(value))} must be a dict, as the '
            f"dict(type='{before['type']}', ...) of the config, or None."
        )


def _import_custom(cfg: Config) -> None:
    """Import the modules in ``custom_imports`` again, which an override may have changed.

    Raises:
        UserError: The field has no list of modules, or one cannot be imported.
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
