# Ten classes of parametric surfaces, 3,000 objects to train with, 1,000 held
# out, 512 points each. Objects lie in any pose: training turns them further.
train_pipeline = [
    dict(type='lm4ve.RandomRotate', group='so3'),
    dict(type='lm4ve.RandomScaleTranslate', scale=(0.85, 1.15), shift=0.05),
    dict(type='lm4ve.RandomJitter', std=0.01, clip=0.03),
    # Another first point, so that the groups differ from epoch to epoch.
    dict(type='lm4ve.SamplePoints', num=512, method='random'),
    dict(type='lm4ve.PackPointCloud'),
]
test_pipeline = [
    dict(type='lm4ve.SamplePoints', num=512, method='first'),
    dict(type='lm4ve.PackPointCloud'),
]
train_dataloader = dict(
    batch_size=32,
    num_workers=0,
    dataset=dict(
        type='lm4ve.PrimitivesDataset', split='train', pipeline=train_pipeline
    ),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=100,
    num_workers=0,
    dataset=dict(type='lm4ve.PrimitivesDataset', split='test', pipeline=test_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
val_evaluator = dict(type='lm4ve.PointCloudAccuracy')
test_dataloader = val_dataloader
test_evaluator = val_evaluator
# Ten draws of each object in another pose, for --tta.
tta_model = dict(type='lm4ve.PointCloudVote')
tta_pipeline = [
    dict(
        type='lm4ve.RepeatDraws',
        num=10,
        transforms=[
            dict(type='lm4ve.RandomRotate', group='so3'),
            dict(type='lm4ve.SamplePoints', num=512, method='random'),
            dict(type='lm4ve.PackPointCloud'),
        ],
    )
]
