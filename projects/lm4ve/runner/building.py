"""Find the field of a config from which a part was being built when a library raised an error.

Constructors of other libraries say what is wrong in their own words, without the place
in the config. Each of them is called by MMEngine's ``build_from_cfg``, whose frame in
the traceback has the part of the config.
"""

import traceback
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config


def find_built_field(error: BaseException) -> str | None:
    """Return the path of the innermost dict that was being built, or None.

    Args:
        error (BaseException): With its traceback.
    """
    config: Config | None = None
    built: Any = None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        value = frame.f_locals.get('cfg')
        if config is None and isinstance(value, Config):
            config = value
        if frame.f_code.co_name == 'build_from_cfg':
            built = value
        elif frame.f_code.co_name == 'build_dataloader':  # the runner's own
            built = frame.f_locals.get('dataloader')
    if config is None or not isinstance(built, Mapping):
        return None
    return _find_path(config.to_dict(), built, '')


def _find_path(node: Any, built: Mapping[str, Any], path: str) -> str | None:
    """Return the path of the first dict below a node from which a part was built."""
    if isinstance(node, Mapping):
        if path and _is_source(node, built):
            return path
        items = [(str(key), value) for key, value in node.items()]
    elif isinstance(node, (list, tuple)):
        items = [(str(index), value) for index, value in enumerate(node)]
    else:
        return None
    for name, value in items:
        found = _find_path(value, built, f'{path}.{name}' if path else name)
        if found is not None:
            return found
    return None


def _is_source(node: Mapping[str, Any], built: Mapping[str, Any]) -> bool:
    """Return whether a part has all fields of a dict: a host may have added some."""
    if 'type' not in node and 'dataset' not in node:  # a dataloader has no type
        return False
    return all(key in built and built[key] == value for key, value in node.items())
