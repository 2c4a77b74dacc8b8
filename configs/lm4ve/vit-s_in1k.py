# DeiT-S by DeiT's recipe, the paper's baseline: mmpretrain's config of it drops
# stochastic depth, repeated augmentation and EMA, clips gradients, and begins with other
# weights.
_base_ = [
    'mmpretrain::deit/deit-small_4xb256_in1k.py',
    '../_base_/image/checked-imagenet.py',
]

model = dict(
    backbone=dict(type='lm4ve.ReleasedViT', drop_path_rate=0.1),
    head=dict(init_cfg=None),  # The model's is for the head, too.
)
train_dataloader = dict(
    num_workers=8,
    **_base_.checked,
    sampler=dict(type='lm4ve.ReleasedRepeatAugSampler', multiple_of=256),
    drop_last=True,
)
val_dataloader = _base_.checked
test_dataloader = _base_.checked
optim_wrapper = dict(type='AmpOptimWrapper', loss_scale='dynamic', clip_grad=None)
# The average is kept; the raw weights are evaluated.
custom_hooks = [dict(type='lm4ve.KeptEMAHook', momentum=4e-5, priority='ABOVE_NORMAL')]
default_hooks = _base_.checkpoint_hooks
randomness = _base_.fixed_seed
