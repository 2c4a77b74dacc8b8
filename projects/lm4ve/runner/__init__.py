"""What happens around a model while it trains: runner, configs, checkpoints, hooks, commands.

Importing this package imports nothing: blocks and tasks use its small modules.
"""

import importlib
from typing import Any

_NAMES = {
    'AtomicCheckpointHook': 'checkpoint_hooks',
    'BlockInUseHook': 'block_in_use',
    'FiniteLossHook': 'finite_loss',
    'KeptEMAHook': 'ema',
    'NeckProgressHook': 'neck_progress',
    'PlainCheckpointHook': 'checkpoint_hooks',
    'Runner': 'runner',
    'WholeCheckpointHook': 'strict_loading',
    'build_runner': 'runner',
}


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(importlib.import_module(f'{__name__}.{_NAMES[name]}'), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
