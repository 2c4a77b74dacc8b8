# What the runtimes of all tasks share; enough for a model on MMEngine alone. A task
# whose host has a scope, hooks or a visualizer of its own adds them in
# `_base_/<task>/runtime.py`. No `save_best`: no checkpoint is chosen by a test score.
_base_ = './checkpoints.py'

default_scope = 'mmengine'  # our own types are named with their scope
default_hooks = dict(
    _base_.checkpoint_hooks,
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=20),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        _base_.checkpoint_hooks['checkpoint'], interval=10, max_keep_ckpts=2
    ),
    sampler_seed=dict(type='DistSamplerSeedHook'),
)
env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
vis_backends = [dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')]
visualizer = dict(type='Visualizer', vis_backends=vis_backends)
log_level = 'INFO'
load_from = None
resume = False
randomness = dict(seed=0, deterministic=False)
