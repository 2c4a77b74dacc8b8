# VectorNet with a frozen block; padding masks and queries reach it.
_base_ = './runtime.py'

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
            type='LLMBlock',
            pretrained=False,
            seed=3,
            layers=(0, 1),
            arch=dict(
                model_type='llama',
                hidden_size=24,
                intermediate_size=32,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                vocab_size=8,
            ),
        ),
    ),
    decoder=dict(type='lm4ve.TrajectoryDecoder', in_channels=8, future_steps=30),
)

default_scope = 'mmengine'
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    dataset=dict(
        type='lm4ve.TrafficDataset',
        split='val',
        root='traffic',
        counts=dict(train=2, val=4),
        pipeline=[dict(type='lm4ve.VectorizeScene', agent_range=60.0, lane_range=50.0)],
    ),
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='lm4ve.collate_scenes'),
)
val_dataloader = train_dataloader
val_evaluator = dict(type='lm4ve.MotionMetric', convention='argoverse1', k=(1, 6))
test_dataloader = val_dataloader
test_evaluator = val_evaluator
