"""The top-level fields that MMEngine and our commands read from a config."""

import ast
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.runner import FlexibleRunner, Runner

from lm4ve.errors import UserError, did_you_mean, listing

#: Top-level fields that MMEngine's runners and the commands read.
FIELDS = {
    *inspect.signature(Runner).parameters,
    *inspect.signature(FlexibleRunner).parameters,
    'activation_checkpointing',
    'allow_new',
    'channels_last',
    'compile',
    'custom_imports',
    'efficient_conv_bn_eval',
    'find_unused_parameters',
    'image_size',
    'init_weights_for_test_or_val',
    'model_wrapper_cfg',
    'runner_type',
    'sync_bn',
    'tta_model',
    'tta_pipeline',
}


def dict_at(cfg: Config, name: str) -> Mapping[str, Any]:
    """Return a top-level field of a config if it is a dict, else an empty dict."""
    value = cfg.get(name)
    if isinstance(value, Mapping):
        return value
    return {}


def dicts_in(node: Any, field: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield every dict of a config's part with its field, outer ones before inner ones.

    Args:
        node: The part.
        field (str): Its own field.
    """
    items: Any = ()
    if isinstance(node, Mapping):
        yield field, node
        items = node.items()
    elif isinstance(node, (list, tuple)):
        items = enumerate(node)
    for name, child in items:
        yield from dicts_in(child, f'{field}.{name}')


def is_number(value: Any) -> bool:
    """Return whether a value of a config is a number; True and False count as such."""
    return isinstance(value, (int, float))


def refuse_unknown(
    cfg: Config, prefix: str, keys: Iterable[str], known: Iterable[str]
) -> None:
    """Refuse the first unknown key, unless the config permits it.

    A leading ``_`` permits a key, as does its path in the config's ``allow_new``.

    Args:
        cfg (Config): The config.
        prefix (str): The path of the dict with the keys, with a dot at its end; '' for
            the top level.
        keys (Iterable[str]): Keys that nothing reads.
        known (Iterable[str]): Keys that are read, for the message.

    Raises:
        UserError: It begins with the key's path.
    """
    permitted = cfg.get('allow_new') or ()
    for key in sorted(keys):
        path = f'{prefix}{key}'
        if key.startswith('_') or path in permitted:
            continue
        advice = did_you_mean(key, known) or f' Known: {listing(sorted(known), 20)}.'
        raise UserError(f'{path} is not a known field.{advice}')


def variables_of(cfg: Config) -> set[str]:
    """Return the top-level names of a config that its files use as variables.

    Such a name is read by other lines of the config files, and by nothing once the
    config is built. Fields of MMEngine and of our commands are none.

    Args:
        cfg (Config): The config. Its ``text`` has the files, each after a line with its
            path.
    """
    # `_base_.name` and `_base_['name']` read a name of another file.
    used = set(re.findall(r"""_base_(?:\.|\[['"])(\w+)""", cfg.text or ''))
    for path, code in _python_files(cfg):
        used |= _names_in(path, code)
    return used & set(cfg) - FIELDS


def _python_files(cfg: Config) -> list[tuple[str, str]]:
    """Return path and code of each Python file of a config, those it inherits from first."""
    parts = re.split(r'(?m)^(\S+\.(?:py|json|ya?ml))$', cfg.text or '')
    files = []
    for path, code in zip(parts[1::2], parts[2::2], strict=True):
        if path.endswith('.py'):
            files.append((path, code))
    return files


def _names_in(path: str, code: str) -> set[str]:
    """Return the names that a config file reads.

    A file in a folder ``_base_`` defines variables for other files, which need not use
    all of them. So the names that it assigns are returned, too.
    """
    is_piece = '_base_' in Path(path).parts
    names = set()
    for node in ast.walk(ast.parse(code)):
        if not isinstance(node, ast.Name):
            continue
        if is_piece or isinstance(node.ctx, ast.Load):
            names.add(node.id)
    return names
