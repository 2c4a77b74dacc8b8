"""Checkpoints from elsewhere to ours, and ours to self-contained releases.

The tools ``tools/<task>/convert_checkpoint.py`` only name their arguments and call this.
"""

import importlib
from typing import Any

from lm4ve.converters.block import compare_block
from lm4ve.converters.key_rules import Rules, rename
from lm4ve.engine.checkpoint_files import read_checkpoint, select_state, write_checkpoint

__all__ = [
    'Rules',
    'compare_block',
    'read_checkpoint',
    'rename',
    'select_state',
    'write_checkpoint',
]


def __getattr__(name: str) -> Any:
    # Its old place. Imported on demand, since a task's converters import this package.
    if name == 'convert_vit':
        return importlib.import_module('lm4ve.tasks.image.converters').convert_vit
    raise AttributeError(f"module 'lm4ve.converters' has no attribute '{name}'")
