# Argoverse 2 as three sub-scenes of 30 steps, which end at steps 30, 40 and 50, as
# RealMotion sees it; from detailed caches (tools/motion/preprocess.py --detailed).
pipeline = [
    dict(
        type='lm4ve.VectorizeSubScenes',
        ends=(30, 40, 50),
        history_steps=30,
        radius=150.0,
    )
]
train_dataloader = dict(
    batch_size=32,
    num_workers=8,
    dataset=dict(
        type='lm4ve.MotionDataset',
        cache='data/argoverse2/train_detailed.cache',
        pipeline=pipeline,
    ),
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='lm4ve.collate_sub_scenes'),
)
val_dataloader = dict(
    batch_size=32,
    num_workers=8,
    dataset=dict(
        type='lm4ve.MotionDataset',
        cache='data/argoverse2/val_detailed.cache',
        pipeline=pipeline,
    ),
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='lm4ve.collate_sub_scenes'),
)
val_evaluator = dict(type='lm4ve.MotionMetric', convention='argoverse2', k=(1, 6))
test_dataloader = val_dataloader
test_evaluator = val_evaluator
