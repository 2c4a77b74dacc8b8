# Made-up ultrasound pictures, 64 x 64, with one ellipse to find.
test_pipeline = [dict(type='PackSegInputs')]
train_pipeline = [
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(
    batch_size=16,
    num_workers=0,
    dataset=dict(
        type='lm4ve.UltrasoundDemo', split='train', count=256, pipeline=train_pipeline
    ),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=16,
    num_workers=0,
    dataset=dict(
        type='lm4ve.UltrasoundDemo', split='val', count=128, pipeline=test_pipeline
    ),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
test_dataloader = dict(
    batch_size=16,
    num_workers=0,
    dataset=dict(
        type='lm4ve.UltrasoundDemo', split='test', count=256, pipeline=test_pipeline
    ),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
val_evaluator = dict(type='lm4ve.LesionIoU', iou_metrics=['mIoU', 'mDice'])
test_evaluator = val_evaluator
