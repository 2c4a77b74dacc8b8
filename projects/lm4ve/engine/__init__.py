"""What happens around a model while it trains: checkpoints, EMA, command lines."""

from lm4ve.engine.checkpoint_hooks import AtomicCheckpointHook, PlainCheckpointHook
from lm4ve.engine.ema import KeptEMAHook

__all__ = ['AtomicCheckpointHook', 'KeptEMAHook', 'PlainCheckpointHook']
