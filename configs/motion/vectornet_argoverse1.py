# VectorNet on Argoverse 1, without a block.
_base_ = [
    '../_base_/motion/argoverse1.py', '../_base_/motion/schedule_60e.py',
    '../_base_/motion/runtime.py'
]

model = dict(
    type='lm4ve.MotionForecaster',
    encoder=dict(type='lm4ve.VectorNet', channels=(32, 64, 128)),
    neck=None,
    decoder=dict(
        type='lm4ve.TrajectoryDecoder', in_channels=256, future_steps=30))
