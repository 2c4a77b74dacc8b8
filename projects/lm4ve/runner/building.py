"""Find the field of a config from which a part was being built when a library raised an error.

Constructors of other libraries say what is wrong in their own words, without the place
in the config. Each of them is called by MMEngine's ``build_from_cfg``, whose frame in
the traceback has the part of the config.
"""

import traceback
from collections.abc import Callable, Mapping
from typing import Any

from mmengine.config import Config


def find_built_field(error: BaseException) -> str | None:
    """Return the path in the config of the part that was being built at an error.

    Args:
        error (BaseException): An error with its traceback. Its innermost frame of
            ``build_from_cfg`` has the part, and its first frame with a variable ``cfg``
            of the class has the whole config.

    Returns:
        str | None: For example 'model.neck' or 'train_dataloader.dataset.pipeline.2'.
        None: nothing was being built, or it is not found in the config.
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
    whole = config.to_dict()
    # A part as it was built, before one that a host may have completed.
    return _find_path(whole, built, _is_equal) or _find_path(whole, built, _is_source)


def _find_path(
    node: Any,
    built: Mapping[str, Any],
    matches: Callable[[Mapping[str, Any], Mapping[str, Any]], bool],
    path: str = '',
) -> str | None:
    """Search a node and everything below it for the dict from which a part was built.

    Args:
        node: A value of the config.
        built (Mapping): The dict that ``build_from_cfg`` got.
        matches (Callable): Whether a dict of the config is the one that is searched.
        path (str): The path of the node; '' for the whole config.

    Returns:
        str | None: The path of the first such dict, parents before children.
    """
    if isinstance(node, Mapping):
        # The whole config is the source of the runner, which is no part of it.
        if path and matches(node, built):
            return path
        items = [(str(key), value) for key, value in node.items()]
    elif isinstance(node, (list, tuple)):
        items = [(str(index), value) for index, value in enumerate(node)]
    else:
        return None
    for name, value in items:
        value_path = f'{path}.{name}' if path else name
        source_path = _find_path(value, built, matches, value_path)
        if source_path is not None:
            return source_path
    return None


def _is_equal(node: Mapping[str, Any], built: Mapping[str, Any]) -> bool:
    """Return whether a part was built from just this dict of the config."""
    return dict(node) == dict(built)


def _is_source(node: Mapping[str, Any], built: Mapping[str, Any]) -> bool:
    """Return whether a part may have been built from a dict of the config.

    The part has all fields of the dict, and perhaps others, which a host has added.

    Args:
        node (Mapping): The dict in the config.
        built (Mapping): The dict that ``build_from_cfg`` got.
    """
    # Parts have a type, but for dataloaders, which have a dataset.
    if 'type' not in node and 'dataset' not in node:
        return False
    return all(key in built and built[key] == value for key, value in node.items())
