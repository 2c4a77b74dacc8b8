# The runtime of video configs that inherit nothing from mmaction2.
_base_ = '../default_runtime.py'

default_scope = 'mmaction'
default_hooks = dict(
    runtime_info=dict(type='RuntimeInfoHook'),
    logger=dict(ignore_last=False),
    checkpoint=dict(interval=1, save_best='auto'),
)
log_processor = dict(type='LogProcessor', window_size=20, by_epoch=True)
visualizer = dict(type='ActionVisualizer')
