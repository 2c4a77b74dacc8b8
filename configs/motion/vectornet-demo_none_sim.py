# The embedded default without a block: a small VectorNet on simulated traffic.
_base_ = [
    '../_base_/motion/traffic_sim.py',
    '../_base_/motion/onecycle_30e.py',
    '../_base_/motion/runtime.py',
]

model = dict(
    type='lm4ve.MotionForecaster',
    encoder=dict(type='lm4ve.VectorNet', channels=(16, 32), num_heads=4, num_layers=2),
    neck=None,
    decoder=dict(type='lm4ve.TrajectoryDecoder', in_channels=64, future_steps=30),
)
