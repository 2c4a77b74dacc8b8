"""What happens around a model while it trains: checkpoints, EMA, files, command lines.

Importing this package imports nothing: blocks and tasks use its small modules.
"""

import importlib
from typing import Any

_HOOKS = {
    'AtomicCheckpointHook': 'checkpoint_hooks',
    'BlockInUseHook': 'block_in_use',
    'FiniteLossHook': 'finite_loss',
    'KeptEMAHook': 'ema',
    'NeckProgressHook': 'neck_progress',
    'PlainCheckpointHook': 'checkpoint_hooks',
    'WholeCheckpointHook': 'whole_checkpoint',
}


def __getattr__(name: str) -> Any:
    if name in _HOOKS:
        return getattr(importlib.import_module(f'{__name__}.{_HOOKS[name]}'), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
