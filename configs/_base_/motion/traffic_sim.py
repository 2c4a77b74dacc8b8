# Simulated traffic in Argoverse 1's files, made and preprocessed on first use.
val_pipeline = [dict(type='lm4ve.VectorizeScene', agent_range=60.0, lane_range=50.0)]
train_pipeline = val_pipeline + [dict(type='lm4ve.FlipScene')]
train_dataloader = dict(
    batch_size=32,
    num_workers=0,
    dataset=dict(type='lm4ve.TrafficDataset', split='train', pipeline=train_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='lm4ve.collate_scenes'),
)
val_dataloader = dict(
    batch_size=100,
    num_workers=0,
    dataset=dict(type='lm4ve.TrafficDataset', split='val', pipeline=val_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='lm4ve.collate_scenes'),
)
val_evaluator = dict(type='lm4ve.MotionMetric', convention='argoverse1', k=(1, 6))
test_dataloader = val_dataloader
test_evaluator = val_evaluator
