# Digits that move in one of eight ways: 32 x 32 pixels, 8 frames, H.264; written
# below data/ at the first use.
train_pipeline = [
    dict(type='DecordInit'),
    dict(type='SampleFrames', clip_len=8, frame_interval=1, num_clips=1),
    dict(type='DecordDecode'),
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='PackActionInputs'),
]
# All eight frames, as in training: `UniformSample` takes the fifth twice and never the
# last. `Resize` does nothing to the set's own videos; it is for others that come in
# through an inferencer.
test_pipeline = [
    dict(type='DecordInit'),
    dict(
        type='SampleFrames', clip_len=8, frame_interval=1, num_clips=1, test_mode=True
    ),
    dict(type='DecordDecode'),
    dict(type='Resize', scale=(32, 32), keep_ratio=False),
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='PackActionInputs'),
]

train_dataloader = dict(
    batch_size=32,
    num_workers=1,
    persistent_workers=True,
    dataset=dict(
        type='lm4ve.MovingDigitsDataset', split='train', pipeline=train_pipeline
    ),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=50,
    num_workers=1,
    persistent_workers=True,
    dataset=dict(
        type='lm4ve.MovingDigitsDataset',
        split='val',
        pipeline=test_pipeline,
        test_mode=True,
    ),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
test_dataloader = dict(
    batch_size=50,
    num_workers=1,
    persistent_workers=True,
    dataset=dict(
        type='lm4ve.MovingDigitsDataset',
        split='test',
        pipeline=test_pipeline,
        test_mode=True,
    ),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
val_evaluator = dict(type='AccMetric')
test_evaluator = val_evaluator
