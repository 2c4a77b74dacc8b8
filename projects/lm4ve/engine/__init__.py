"""What happens around a model while it trains: checkpoints, processes, command lines."""
from lm4ve.engine.checkpoints import AtomicCheckpointHook, PlainCheckpointHook

__all__ = ['AtomicCheckpointHook', 'PlainCheckpointHook']
