"""Read config files; a missing or wrong one raises an error that names the file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import init_default_scope

from lm4ve import compat
from lm4ve.errors import UserError, did_you_mean, require
from lm4ve.runner.config.checking import check_config
from lm4ve.runner.config.fields import FIELDS
from lm4ve.runner.config.overrides import merge_options
from lm4ve.zoo import all_models, find_config
from lm4ve.zoo.removed_controls import REMOVED_CONTROLS


def read_config(
    path: str | Path, options: dict[str, Any] | None = None, set_scope: bool = True
) -> Config:
    """Read a config file, merge overrides into it and make its scope the default.

    Args:
        path (str | Path): The file, or a name (:func:`lm4ve.zoo.find_config`); a control
            that was removed is read as its config and option.
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
    compat.activate()
    path = find_config(path)
    options = dict(options or {})
    if path.stem in REMOVED_CONTROLS and not path.is_file():
        name, control = REMOVED_CONTROLS[path.stem]
        print_log(f"'{path.stem}' is '{name}' with {control}.", logger='current')
        path = find_config(name)
        options = {**control, **options}
    if not path.is_file():
        advice = did_you_mean(str(path), all_models()) or ' See: lm4ve list.'
        raise UserError(f"The config '{path}' does not exist.{advice}")
    # MMEngine also takes JSON and YAML, in which nobody expects code to be run.
    require(
        path.suffix == '.py',
        f"The config '{path}' is no Python file. Fix: write it as .py.",
    )
    try:
        cfg = Config.fromfile(path)
    except Exception as e:
        raise UserError(f"The config '{path}' cannot be read: {_describe(e)}") from e
    for name in cfg:
        # Variables of a config's files keep it: they may stand in for a field.
        if name in FIELDS:
            _drop_delete_marks(cfg[name])
    if options:
        merge_options(cfg, options)
    if set_scope:
        init_default_scope(cfg.get('default_scope') or 'mmengine')
    return cfg


def _drop_delete_marks(node: Any) -> None:
    """Remove ``_delete_`` where it had no effect, since the base has no such field.

    MMEngine removes it only where there is something to delete, and would pass it to the
    class that is built.

    Args:
        node: A value of the config; it is changed, with everything below it.
    """
    children: Sequence[Any] = ()
    if isinstance(node, dict):
        node.pop('_delete_', None)
        children = list(node.values())
    elif isinstance(node, (list, tuple)):
        children = node
    for child in children:
        _drop_delete_marks(child)


def _describe(error: Exception) -> str:
    """Explain an error of reading a config file, with the line if it is a syntax error."""
    if isinstance(error, ImportError):
        return f'{error}. An extra of lm4ve may be missing, as image.'
    if isinstance(error, SyntaxError) and error.text:
        return f'{error}: {error.text.strip()}.'
    return f'{str(error).removesuffix(".")}.'


def read_checked_config(
    path: str | Path, options: dict[str, Any] | None = None, set_scope: bool = True
) -> Config:
    """Read a config as :func:`read_config` does, and check it.

    Args:
        path (str | Path): See :func:`read_config`.
        options (dict, optional): See :func:`read_config`.
        set_scope (bool): See :func:`read_config`.

    Returns:
        Config: The whole config.

    Raises:
        UserError: See :func:`read_config` and :func:`check_config`.
    """
    cfg = read_config(path, options, set_scope)
    check_config(cfg)
    return cfg
