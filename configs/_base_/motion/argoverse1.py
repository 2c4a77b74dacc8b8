# Argoverse 1 motion forecasting, from the caches of tools/motion/preprocess.py
# (docs/guides/motion_forecasting.md). Scored by its own convention.
pipeline = [dict(type='lm4ve.VectorizeScene', agent_range=100.0, lane_range=100.0)]
train_dataloader = dict(
    batch_size=32,
    num_workers=8,
    dataset=dict(
        type='lm4ve.MotionDataset',
        cache='data/argoverse1/train.cache',
        pipeline=pipeline,
    ),
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='lm4ve.collate_scenes'),
)
val_dataloader = dict(
    batch_size=64,
    num_workers=8,
    dataset=dict(
        type='lm4ve.MotionDataset', cache='data/argoverse1/val.cache', pipeline=pipeline
    ),
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='lm4ve.collate_scenes'),
)
val_evaluator = dict(type='lm4ve.MotionMetric', convention='argoverse1', k=(1, 6))
test_dataloader = val_dataloader
test_evaluator = val_evaluator
