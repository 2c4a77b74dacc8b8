"""What decides the result of a trial, as a hash: equal trials are trained once."""

import copy
import functools
import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from lm4ve.runner.config import merge_options, read_config
from lm4ve.version import __version__


def identity(path: Path, options: dict[str, Any]) -> str:
    """Return a hash of everything that a trial's result depends on, 16 hex digits.

    It covers the whole config with the trial's overrides, seed included, and the
    versions of this package and of PyTorch. It does not cover the files that the config
    names (data, checkpoints), the number of threads and the device.

    Args:
        path (Path): The config.
        options (dict): Dotted config field -> value; it is not changed.
    """
    cfg = fresh_config(path)
    # The merge also adapts schedules and sizes that follow from the overrides, so that
    # the hash is of the config that is trained. MMEngine takes the key `_delete_` out of
    # the overrides it merges; the copy keeps the caller's as they are.
    merge_options(cfg, copy.deepcopy(options))
    content = dict(config=cfg.to_dict(), lm4ve=__version__, torch=torch.__version__)
    # Values that JSON lacks, such as classes, are hashed by their text.
    text = json.dumps(content, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def fresh_config(path: Path) -> Config:
    """Return a copy of a config; a file is read once for all its trials."""
    return copy.deepcopy(_read(path))


@functools.cache
def _read(path: Path) -> Config:
    """Read a config file once; callers copy the result before they change it."""
    return read_config(path, set_scope=False)
