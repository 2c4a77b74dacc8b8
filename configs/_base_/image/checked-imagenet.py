# For a config that inherits one of mmpretrain's for ImageNet: corrupt files are named,
# and the checkpoints are ours. Such a config writes
#   train_dataloader = _base_.checked
#   val_dataloader = _base_.checked
#   test_dataloader = _base_.checked
#   default_hooks = _base_.checkpoint_hooks
#   randomness = _base_.fixed_seed
_base_ = '../checkpoints.py'

checked = dict(dataset=dict(type='lm4ve.CheckedImageNet'))
checkpoint_hooks = dict(checkpoint=dict(max_keep_ckpts=3))
