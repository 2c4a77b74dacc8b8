# VectorNet with a frozen block; padding masks and queries reach it.
_base_ = './scenes.py'

model = dict(
    type='lm4ve.MotionForecaster',
    encoder=dict(
        type='lm4ve.VectorNet',
        channels=(4, 4),
        num_heads=2,
        num_layers=2,
        final_norm=False,
    ),
    neck=dict(
        type='LLMBlockNeck',
        in_channels=8,
        init_cfg=dict(type='TruncNormal', layer='Linear', std=0.2),
        block=dict(
            type='LLMBlock', checkpoint='tests/data/before_redesign/llm/tiny-llama'
        ),
    ),
    decoder=dict(type='lm4ve.TrajectoryDecoder', in_channels=8, future_steps=30),
)
