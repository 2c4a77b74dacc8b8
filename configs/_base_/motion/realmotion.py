# RealMotion with the scene stream and the sizes of PanguMotion, without a block.
model = dict(
    type='lm4ve.StreamForecaster',
    encoder=dict(type='lm4ve.RealMotion', channels=128, num_layers=4, num_heads=8),
    neck=None,
    decoder=dict(type='lm4ve.RealMotionDecoder', in_channels=128, future_steps=60),
)
