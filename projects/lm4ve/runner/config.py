"""Read a config file and merge overrides into it.

Two fields have others that follow them when they are overridden: schedules that ended with
the last epoch still do, and transforms and models keep the size of the images.
"""

import re
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import init_default_scope

from lm4ve.errors import UserError
from lm4ve.runner.config_schema import check_option

#: Before a field of ``--cfg-options`` that is new to the config.
ALLOW_NEW = 'allow_new.'
#: Distribution whose configs ours inherit -> the extra that brings it.
_EXTRAS = dict(
    mmpretrain='image', mmaction2='video', mmsegmentation='segmentation', mmdet='detection'
)
_ENDS = ('end', 'T_max', 'total_steps')
#: Names of what follows a config's ``image_size``, and in which fields.
_SIZES = ('scale', 'crop_size', 'image_size', 'img_size')
_SIZED = ('model', '_dataloader', '_pipeline')


def read_config(
    path: str | Path, options: dict[str, Any] | None = None, set_scope: bool = True
) -> Config:
    """Read a config file, merge overrides into it and make its scope the default.

    Args:
        path (str | Path): The file.
        options (dict, optional): Overrides by dotted field name, as
            ``--cfg-options`` gives them.
        set_scope (bool): Make the config's ``default_scope`` MMEngine's current
            one, so that its types are found. A Runner does it by itself.

    Returns:
        Config: The whole config.

    Raises:
        UserError: The file does not exist, or inherits one of a package that is not installed.
    """
    if not Path(path).is_file():
        raise UserError(f"The config '{path}' does not exist; see configs/ for those there are.")
    try:
        cfg = Config.fromfile(path)
    except ModuleNotFoundError as e:
        lacking = re.match('(.+) is not installed, please install', str(e))
        extra = _EXTRAS.get(lacking[1]) if lacking else None
        if extra is None:
            raise
        raise UserError(f"The config '{path}' needs: pip install 'lm4ve[{extra}]'. ({e})") from e
    if options:
        merge_options(cfg, options)
    if set_scope:
        init_default_scope(cfg.get('default_scope') or 'mmengine')
    return cfg


def merge_options(cfg: Config, options: dict[str, Any]) -> None:
    """Merge overrides into a config; raise an error for one that would have no effect.

    Where ``train_cfg.max_epochs`` is overridden and no schedule is, schedules that ended with
    the last epoch follow it. Where a config has a field ``image_size``, its transforms and its
    model follow that one.

    Args:
        cfg (Config): Changed in place.
        options (dict): Values by dotted field. A leading ``allow_new.`` permits a field that
            is new to the config.

    Raises:
        UserError: There is no such field, or a schedule would begin after the last epoch.
    """
    fields = {name.removeprefix(ALLOW_NEW): value for name, value in options.items()}
    for field in fields:
        if field in options:
            check_option(cfg, field)
        else:
            cfg.allow_new = [*(cfg.get('allow_new') or ()), field]
    epochs, size = _epochs(cfg), cfg.get('image_size')
    cfg.merge_from_dict(fields)
    if size is not None:
        for name in cfg:
            if name.endswith(_SIZED):
                _follow_size(cfg[name], size, cfg.image_size)
    if not any(field.startswith('param_scheduler') for field in fields):
        _follow_epochs(cfg, epochs, _epochs(cfg))


def _epochs(cfg: Config) -> Any:
    return (cfg.get('train_cfg') or {}).get('max_epochs')


def _follow_epochs(cfg: Config, before: Any, after: Any) -> None:
    """Make the schedules that ended with the last epoch end with the new last one."""
    schedulers = cfg.get('param_scheduler') or []
    for s in schedulers if isinstance(schedulers, list) else [schedulers]:
        if before == after or None in (before, after) or not s.get('by_epoch', True):
            continue
        begin = s.get('begin', 0)
        ends = {k: s[k] for k in _ENDS if s.get(k)}
        if ends and begin >= after:
            raise UserError(
                f'train_cfg.max_epochs={after} ends before param_scheduler {s.type} begins '
                f'(begin={begin}); override param_scheduler too.'
            )
        for key, end in ends.items():
            if end in (before, before - begin):
                s[key] = after if end == before else after - begin


def _follow_size(node: Any, before: Any, after: Any) -> None:
    """Give transforms and model the new size where they had the old one."""
    if isinstance(node, dict):
        for key in _SIZES:
            if node.get(key) in (before, [before] * 2, (before, before)):
                node[key] = after if node[key] == before else type(node[key])([after] * 2)
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for value in node:
            _follow_size(value, before, after)
