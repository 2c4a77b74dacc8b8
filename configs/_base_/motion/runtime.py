# The runtime of motion forecasting, on MMEngine alone.
custom_imports = dict(imports=['lm4ve'])
# Our own types are named with their scope.
default_scope = 'mmengine'
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='lm4ve.AtomicCheckpointHook', interval=1, max_keep_ckpts=2),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='lm4ve.MotionVisualizationHook', enable=False),
    plain_checkpoint=dict(type='lm4ve.PlainCheckpointHook'))
env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'))
vis_backends = [
    dict(type='LocalVisBackend'),
    dict(type='TensorboardVisBackend')
]
visualizer = dict(type='lm4ve.MotionVisualizer', vis_backends=vis_backends)
log_processor = dict(type='LogProcessor', window_size=50)
log_level = 'INFO'
load_from = None
resume = False
randomness = dict(seed=0, deterministic=False)
