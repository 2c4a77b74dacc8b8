# What every training here shares: SGD, three epochs, no logs.
custom_imports = dict(imports=['lm4ve'])
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=1),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='lm4ve.AtomicCheckpointHook', interval=1, max_keep_ckpts=2),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    plain_checkpoint=dict(type='lm4ve.PlainCheckpointHook'),
)
env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='gloo'),
)
log_level = 'WARNING'
load_from = None
resume = False
randomness = dict(seed=0, deterministic=False)
optim_wrapper = dict(
    optimizer=dict(type='SGD', lr=0.1, momentum=0.0), clip_grad=dict(max_norm=5.0)
)
param_scheduler = dict(type='CosineAnnealingLR', T_max=3, by_epoch=True)
train_cfg = dict(by_epoch=True, max_epochs=3, val_interval=1)
val_cfg = dict()
test_cfg = dict()
