# The hooks of every training, our checkpoints among them, and a seed. `default_runtime.py`
# takes the hooks. A config that inherits a host's own runtime has `default_hooks`, and
# perhaps `randomness`, already, and writes
#   default_hooks = _base_.checkpoint_hooks
#   randomness = _base_.fixed_seed
custom_imports = dict(imports=['lm4ve.openmmlab'])
checkpoint_hooks = dict(
    checkpoint=dict(type='lm4ve.AtomicCheckpointHook'),
    plain_checkpoint=dict(type='lm4ve.PlainCheckpointHook'),
    whole_checkpoint=dict(type='lm4ve.WholeCheckpointHook'),
    ending=dict(type='lm4ve.EndingHook'),
    block_in_use=dict(type='lm4ve.BlockInUseHook'),
)
fixed_seed = dict(seed=0)
