# DeiT-S by DeiT's recipe, the paper's baseline: mmpretrain's config of it drops
# stochastic depth, repeated augmentation and EMA, and clips gradients.
_base_ = 'mmpretrain::deit/deit-small_4xb256_in1k.py'

model = dict(backbone=dict(drop_path_rate=0.1))
train_dataloader = dict(
    num_workers=8,
    dataset=dict(type='lm4ve.CheckedImageNet'),
    sampler=dict(type='RepeatAugSampler', shuffle=True),
)
val_dataloader = dict(dataset=dict(type='lm4ve.CheckedImageNet'))
test_dataloader = val_dataloader
optim_wrapper = dict(type='AmpOptimWrapper', loss_scale='dynamic', clip_grad=None)
# The average is kept; the raw weights are evaluated.
custom_hooks = [dict(type='lm4ve.KeptEMAHook', momentum=4e-5, priority='ABOVE_NORMAL')]
custom_imports = dict(imports=['lm4ve'])
default_hooks = dict(
    checkpoint=dict(type='lm4ve.AtomicCheckpointHook', max_keep_ckpts=3),
    plain_checkpoint=dict(type='lm4ve.PlainCheckpointHook'),
)
