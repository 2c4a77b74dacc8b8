"""Read a config file; one that has moved is answered with its new path."""

import os.path as osp
import re
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import init_default_scope

from lm4ve.errors import UserError
from lm4ve.zoo.moved_configs import where_it_went


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
        UserError: The file, or one that it inherits, does not exist. If it has moved,
            the message gives the new path.
    """
    if not osp.isfile(path):
        raise UserError(f"The config '{path}' does not exist. Fix: {_advice(path)}")
    try:
        cfg = Config.fromfile(path)
    except FileNotFoundError as e:
        missing = re.fullmatch('file "(.+)" does not exist', str(e))
        if missing is None:
            raise
        raise UserError(
            f"The config '{path}' inherits '{missing[1]}', which does not exist. "
            f'Fix: {_advice(missing[1])}'
        ) from e
    if options:
        cfg.merge_from_dict(options)
    if set_scope:
        init_default_scope(cfg.get('default_scope') or 'mmengine')
    return cfg


def _advice(path: str | Path) -> str:
    return where_it_went(path) or 'see configs/ for what there is.'
