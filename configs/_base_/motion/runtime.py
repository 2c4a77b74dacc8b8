# The runtime of motion forecasting, on MMEngine alone.
_base_ = '../default_runtime.py'

default_hooks = dict(
    logger=dict(interval=50),
    checkpoint=dict(interval=1),
    visualization=dict(type='lm4ve.MotionVisualizationHook', enable=False),
)
log_processor = dict(type='LogProcessor', window_size=50)
visualizer = dict(type='lm4ve.MotionVisualizer')
