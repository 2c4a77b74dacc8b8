# ModelNet40, 1024 points of 8192 that are stored in farthest-point order.
train_pipeline = [
    dict(type='lm4ve.NormalizeToUnitSphere'),
    # As released: other farthest points in each epoch. Tests take the stored order.
    dict(type='lm4ve.SamplePoints', num=1200, method='fps', start='random', fill=False),
    dict(type='lm4ve.SamplePoints', num=1024, method='random'),
    dict(type='lm4ve.RandomScaleTranslate', scale=(2 / 3, 3 / 2), shift=0.2),
    dict(type='lm4ve.PackPointCloud'),
]
test_pipeline = [
    dict(type='lm4ve.NormalizeToUnitSphere'),
    dict(type='lm4ve.SamplePoints', num=1024, method='first'),
    dict(type='lm4ve.PackPointCloud'),
]
train_dataloader = dict(
    batch_size=32,
    num_workers=8,
    drop_last=True,
    dataset=dict(
        type='lm4ve.ModelNet40',
        data_root='data/ModelNet40',
        split='train',
        pipeline=train_pipeline,
    ),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
# There is no validation split: the test set is scored now and then for the log,
# and no checkpoint is chosen by it.
val_dataloader = dict(
    batch_size=64,
    num_workers=8,
    dataset=dict(
        type='lm4ve.ModelNet40',
        data_root='data/ModelNet40',
        split='test',
        pipeline=test_pipeline,
    ),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
val_evaluator = dict(type='lm4ve.PointCloudAccuracy')
test_dataloader = val_dataloader
test_evaluator = val_evaluator
# --tta: the mean of ten augmented draws, once.
tta_model = dict(type='lm4ve.PointCloudVote')
tta_pipeline = [
    dict(type='lm4ve.NormalizeToUnitSphere'),
    dict(type='lm4ve.SamplePoints', num=1200, method='first', fill=False),
    dict(type='lm4ve.RepeatDraws', num=10, transforms=train_pipeline[2:]),
]
