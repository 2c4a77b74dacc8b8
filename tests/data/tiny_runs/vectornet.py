# VectorNet with a frozen block; padding masks and queries reach it.
_base_ = './runtime.py'

default_scope = 'mmengine'
layers = dict(channels=(4, 4), num_heads=2, num_layers=2, final_norm=False)
model = dict(
    type='lm4ve.MotionForecaster',
    encoder=dict(type='lm4ve.VectorNet', **layers),
    neck=dict(**_base_.llm_neck, in_channels=8),
    decoder=dict(type='lm4ve.TrajectoryDecoder', in_channels=8, future_steps=30),
)
vectors = dict(type='lm4ve.VectorizeScene', agent_range=60.0, lane_range=50.0)
scenes = dict(split='val', root='traffic', counts=dict(train=2, val=4))
train_dataloader = val_dataloader = test_dataloader = dict(
    batch_size=2,
    dataset=dict(type='lm4ve.TrafficDataset', pipeline=[vectors], **scenes),
    sampler=_base_.in_order,
    collate_fn=dict(type='lm4ve.collate_scenes'),
)
val_evaluator = test_evaluator = dict(
    type='lm4ve.MotionMetric', convention='argoverse1', k=(1, 6)
)
