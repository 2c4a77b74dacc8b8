"""Read a config file; one that has moved is answered with its new path."""

import ast
import functools
import inspect
import logging
import os.path as osp
import re
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import init_default_scope
from mmengine.runner import FlexibleRunner, Runner

from lm4ve.errors import UserError, did_you_mean
from lm4ve.runner.nested_fields import allowed_names, check_nested_fields

#: Before a field of ``--cfg-options`` that is new to the config.
ALLOW_NEW = 'allow_new.'
#: Distribution whose configs ours inherit -> the extra that brings it.
_EXTRAS = dict(
    mmpretrain='image', mmaction2='video', mmsegmentation='segmentation', mmdet='detection'
)
_ENDS = ('end', 'T_max', 'total_steps')
#: Names of what follows a config's ``image_size``, and in which fields.
_SIZES = ('scale', 'crop_size', 'image_size', 'img_size')
_SIZED = ('_dataloader', '_pipeline')
_TOOL_FIELDS = (
    *('activation_checkpointing', 'allow_new', 'compile', 'custom_imports', 'default_scope'),
    *('efficient_conv_bn_eval', 'env_cfg', 'model_wrapper_cfg', 'runner_type', 'tta_model'),
    # Which merge_options lets the model and the transforms follow.
    'image_size',
    # MMEngine's runners read these from the config itself.
    *('find_unused_parameters', 'init_weights_for_test_or_val', 'sync_bn'),
    *('tta_pipeline', 'train_pipeline', 'val_pipeline', 'test_pipeline', 'auto_scale_lr'),
)


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
        UserError: The file, or one that it inherits, does not exist, or is of a package that
            is not installed. If it has moved, the message gives the new path.
    """
    if not osp.isfile(path):
        raise UserError(f"The config '{path}' does not exist. Fix: {_advice(path)}")
    try:
        cfg = Config.fromfile(path)
    except ModuleNotFoundError as e:
        lacking = re.match('(.+) is not installed, please install', str(e))
        if lacking is None:
            raise
        extra = _EXTRAS.get(lacking[1])
        wanted = f'"lm4ve[{extra}]"' if extra else lacking[1]
        raise UserError(
            f"The config '{path}' inherits one of {lacking[1]}, which is not installed. Fix: pip "
            f'install {wanted}.'
        ) from e
    except FileNotFoundError as e:
        missing = re.fullmatch('file "(.+)" does not exist', str(e))
        if missing is None:
            raise
        raise UserError(
            f"The config '{path}' inherits '{missing[1]}', which does not exist. "
            f'Fix: {_advice(missing[1])}'
        ) from e
    if options:
        merge_options(cfg, options)
    if set_scope:
        init_default_scope(cfg.get('default_scope') or 'mmengine')
    return cfg


def merge_options(cfg: Config, options: dict[str, Any]) -> None:
    """Merge overrides into a config; refuse a field that nobody would read.

    Below a field that exists, new names are arguments of what is built of it, which
    refuses those that it does not take. Schedules that ended with the training still do
    when ``train_cfg.max_epochs`` is overridden and they are not; where a config has a field
    ``image_size``, its transforms and its model follow that one.

    Args:
        cfg (Config): Changed in place.
        options (dict): Values by dotted field. A leading ``allow_new.`` insists on a
            field that is new to the config.

    Raises:
        UserError: There is no such field.
    """
    wanted = {}
    for name, value in options.items():
        field = name.removeprefix(ALLOW_NEW)
        first = field.partition('.')[0]
        known = {*cfg, *_runner_fields()}
        if first == 'custom_imports':
            raise UserError(
                f'--cfg-options {name}: modules are imported while the config file is read, before '
                'overrides. Fix: set custom_imports in a config file.'
            )
        if field == name and first in _used_up(cfg):
            raise UserError(
                f"--cfg-options {name}: '{first}' is a variable of the config file. The fields "
                'made of it have its value already, and nobody reads it again. Fix: override the '
                f'field that it went into, or write {ALLOW_NEW}{name} to set it nevertheless.'
            )
        if field == name and first not in known:
            raise UserError(
                f"--cfg-options {name}: the config has no field '{first}'."
                f'{did_you_mean(first, known)} Fix: correct it, or write {ALLOW_NEW}{name} to add '
                'the field.'
            )
        wanted[field] = value
        if field != name:
            cfg.allow_new = [*allowed_names(cfg), field]
    before = _epochs(cfg)
    size = cfg.get('image_size')
    cfg.merge_from_dict(wanted)
    if size is not None and cfg.image_size != size:
        for name in [n for n in cfg if n == 'model' or n.endswith(_SIZED)]:
            _follow_size(cfg[name], size, cfg.image_size)
    after = _epochs(cfg)
    if (
        before
        and after
        and before != after
        and not any(k.startswith('param_scheduler') for k in wanted)
    ):
        _follow_epochs(cfg, before, after)


def _epochs(cfg: Config) -> int | None:
    """Return how many epochs a config trains, if it says so; a wrong value is refused later."""
    loop = cfg.get('train_cfg')
    epochs = loop.get('max_epochs') if isinstance(loop, dict) else None
    return epochs if type(epochs) is int and epochs > 0 else None


def _follow_epochs(cfg: Config, before: int, after: int) -> None:
    """Make the schedules that ended with the last epoch end with the new last one."""
    schedulers = cfg.get('param_scheduler') or []
    for s in schedulers if isinstance(schedulers, list) else [schedulers]:
        begin = s.get('begin', 0)
        if not s.get('by_epoch', True) or not any(s.get(k) for k in _ENDS):
            continue
        if begin >= after:
            raise UserError(
                f'train_cfg.max_epochs={after} ends before {s.type} begins (param_scheduler.begin='
                f'{begin}). Fix: train longer, or override param_scheduler too.'
            )
        for key in _ENDS:
            if s.get(key) in (before, before - begin):
                s[key] = after if s[key] == before else after - begin


def _warn_of_cut_schedules(cfg: Config) -> None:
    """Say where a config file trains for fewer epochs than its schedule has."""
    epochs = _epochs(cfg)
    schedulers = cfg.get('param_scheduler') or []
    for s in schedulers if isinstance(schedulers, list) else [schedulers]:
        if not isinstance(s, dict) or not s.get('by_epoch', True) or not epochs:
            continue
        key = next((k for k in _ENDS if type(s.get(k)) is int), None)
        last = s[key] + (s.get('begin', 0) if key == 'T_max' else 0) if key else 0
        if last > epochs:
            print_log(
                f'train_cfg.max_epochs={epochs}, and {s.get("type")} ends with epoch {last} '
                f'(param_scheduler.{key}={s[key]}): the training stops in the middle of the '
                'schedule. Fix: set both, unless you mean it; --cfg-options '
                'train_cfg.max_epochs=... changes both.',
                logger='current',
                level=logging.WARNING,
            )


def _follow_size(node: Any, before: int, after: int) -> None:
    """Give transforms and model the new size where they had the old one."""
    if isinstance(node, dict):
        for key in _SIZES:
            if key in node and node[key] in (before, [before] * 2, (before, before)):
                node[key] = after if node[key] == before else type(node[key])([after] * 2)
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for value in node:
            _follow_size(value, before, after)


def check_fields(cfg: Config) -> None:
    """Refuse top-level names that are misspelled fields; warn of those that nobody reads.

    A name is read by the runner, by a tool, or by the config's own files, as a variable
    is. Of the others, those close to a field are errors and the rest are warnings, since
    a hook of somebody's own may read them. A leading ``_``, or ``allow_new = ['name']`` in
    the config, says that a name is meant.

    Raises:
        UserError: It names the closest field.
    """
    check_nested_fields(cfg)
    _warn_of_cut_schedules(cfg)
    known = _runner_fields()
    written, read = _names_in_files(cfg)
    allowed = allowed_names(cfg)
    for name in [n for n in cfg if n not in known and n not in allowed and n[:1] != '_']:
        variable = name in read or name not in written
        close = get_close_matches(name, known, 1, 0.9 if variable else 0.8)
        # 'train_pipeline_2' is no misspelling.
        if close and not name.startswith(close[0]) and not close[0].endswith(f'_{name}'):
            raise UserError(
                f"The config's field '{name}' is read by nobody. Did you mean '{close[0]}'? Fix: "
                f"correct it, or set allow_new=['{name}'] in the config."
            )
        if not variable:
            print_log(
                f"The config's field '{name}' is read by none of its files, the runner or the "
                f'tools.{did_you_mean(name, known)} Fix: take it out, or, if something of yours '
                f"reads it, set allow_new=['{name}'] in the config.",
                logger='current',
                level=logging.WARNING,
            )


def _used_up(cfg: Config) -> set[str]:
    """Return the names that only the config's own files read."""
    read = _names_in_files(cfg)[1]
    return (read & set(cfg)) - _runner_fields()


def _names_in_files(cfg: Config) -> tuple[set[str], set[str]]:
    """Return the names that a config's Python files set, and those that they read.

    What a piece (a file below a folder ``_base_``) sets is not counted: it offers
    variables, and who inherits it need not use all of them.
    """
    text = cfg.text or ''
    written: set[str] = set()
    read = set(re.findall(r"""_base_(?:\.|\[['"])(\w+)""", text))
    # Each file's text comes after a line with its path.
    parts = re.split(r'(?m)^(\S+\.(?:py|json|ya?ml))$', text)
    for path, code in zip(parts[1::2], parts[2::2], strict=True):
        if not path.endswith('.py'):
            continue
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                read.add(node.id)
            elif isinstance(node, ast.Name) and '_base_' not in Path(path).parts:
                written.add(node.id)
    return written, read


@functools.cache
def _runner_fields() -> frozenset[str]:
    """Return the top-level fields that MMEngine's runners and the tools read."""
    built = {n for c in (Runner, FlexibleRunner) for n in inspect.signature(c).parameters}
    return frozenset(built) | {*_TOOL_FIELDS}


def _advice(path: str | Path) -> str:
    return 'see configs/ for what there is.'
