# Rooms of colored shapes: 19,200 / 1,920 questions about 600 / 60 rooms, 13 answers. To
# choose settings, validate on split='val'. Written to data/rooms on first use.
train_dataloader = dict(
    batch_size=16,
    num_workers=0,
    dataset=dict(
        type='lm4ve.Rooms',
        split='train',
        pipeline=[
            dict(type='lm4ve.LoadScene'),
            dict(type='lm4ve.SampleScenePoints', num=512),
            dict(type='lm4ve.PackScene'),
        ],
    ),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=100,
    num_workers=0,
    dataset=dict(
        type='lm4ve.Rooms',
        split='test',
        pipeline=[
            dict(type='lm4ve.LoadScene', annotations=False),
            dict(type='lm4ve.SampleScenePoints', num=512, seed=0),
            dict(type='lm4ve.PackScene'),
        ],
    ),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
val_evaluator = dict(type='lm4ve.SQA3DAccuracy')
test_dataloader = val_dataloader
test_evaluator = val_evaluator
