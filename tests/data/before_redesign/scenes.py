# The data of vectornet.py and mmtransformer.py: simulated traffic in a cache that
# tools/motion/preprocess.py wrote beside this file. The imports are those that every
# motion config named before the redesign.
_base_ = './runtime.py'

custom_imports = dict(imports=['lm4ve', 'lm4ve.motion', 'lm4ve.demo.traffic_dataset'])
default_scope = 'mmengine'
pipeline = [dict(type='lm4ve.VectorizeScene', agent_range=60.0, lane_range=50.0)]
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    dataset=dict(
        type='lm4ve.MotionDataset',
        cache='tests/data/before_redesign/scenes.cache',
        pipeline=pipeline,
    ),
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='lm4ve.collate_scenes'),
)
val_dataloader = dict(
    batch_size=2,
    num_workers=0,
    dataset=train_dataloader['dataset'],
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='lm4ve.collate_scenes'),
)
val_evaluator = dict(type='lm4ve.MotionMetric', convention='argoverse1', k=(1, 6))
test_dataloader = val_dataloader
test_evaluator = val_evaluator
