"""Checkpoints from elsewhere to ours, and ours to self-contained releases.

The tools in ``tools/model_converters`` only parse arguments and call this.
"""

from lm4ve.converters.block import compare_block
from lm4ve.converters.key_rules import Rules, rename
from lm4ve.engine.checkpoint_files import (
    read_checkpoint,
    select_state,
    write_checkpoint,
)
from lm4ve.tasks.image.converters import convert_vit

__all__ = [
    'Rules',
    'compare_block',
    'convert_vit',
    'read_checkpoint',
    'rename',
    'select_state',
    'write_checkpoint',
]
