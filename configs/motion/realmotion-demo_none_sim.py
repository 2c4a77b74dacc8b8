# The embedded default of RealMotion: a small one on simulated traffic, without a block.
_base_ = [
    '../_base_/motion/traffic_sim_stream.py',
    '../_base_/motion/onecycle_4e.py',
    '../_base_/motion/runtime.py',
]

model = dict(
    type='lm4ve.StreamForecaster',
    encoder=dict(
        type='lm4ve.RealMotion',
        channels=32,
        num_layers=2,
        num_heads=4,
        dropout=0.0,
        drop_path=0.0,
    ),
    neck=None,
    decoder=dict(type='lm4ve.RealMotionDecoder', in_channels=32, future_steps=30),
)
