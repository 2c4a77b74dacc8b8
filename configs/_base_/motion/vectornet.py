# VectorNet without a block, for three seconds of Argoverse 1.
model = dict(
    type='lm4ve.MotionForecaster',
    encoder=dict(type='lm4ve.VectorNet', channels=(32, 64, 128)),
    neck=None,
    decoder=dict(type='lm4ve.TrajectoryDecoder', in_channels=256, future_steps=30),
)
