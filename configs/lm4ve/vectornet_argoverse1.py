# VectorNet on Argoverse 1, without a block.
_base_ = [
    '../_base_/datasets/argoverse1.py', '../_base_/schedules/motion_60e.py',
    '../_base_/motion_runtime.py'
]

model = dict(
    type='lm4ve.MotionForecaster',
    encoder=dict(type='lm4ve.VectorNet', channels=(32, 64, 128)),
    neck=None,
    decoder=dict(
        type='lm4ve.TrajectoryDecoder', in_channels=256, future_steps=30))
