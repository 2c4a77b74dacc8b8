# DeiT-S by DeiT's recipe, the paper's baseline: mmpretrain's config of it drops
# stochastic depth, repeated augmentation and EMA, and clips gradients.
_base_ = [
    'mmpretrain::deit/deit-small_4xb256_in1k.py',
    '../_base_/image/checked-imagenet.py',
]

model = dict(backbone=dict(drop_path_rate=0.1))
train_dataloader = dict(
    num_workers=8, **_base_.checked, sampler=dict(type='RepeatAugSampler', shuffle=True)
)
val_dataloader = _base_.checked
test_dataloader = _base_.checked
optim_wrapper = dict(type='AmpOptimWrapper', loss_scale='dynamic', clip_grad=None)
# The average is kept; the raw weights are evaluated.
custom_hooks = [dict(type='lm4ve.KeptEMAHook', momentum=4e-5, priority='ABOVE_NORMAL')]
default_hooks = _base_.checkpoint_hooks
