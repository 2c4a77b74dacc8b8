# ScanObjectNN, 1024 of its 2048 points, as they are in the files.
train_pipeline = [
    # As released: other farthest points in each epoch, so that training sees nearly all
    # points of a file. Tests take those from the file's first point on.
    dict(type='lm4ve.SamplePoints', num=1200, method='fps', start='random', fill=False),
    dict(type='lm4ve.SamplePoints', num=1024, method='random'),
    dict(type='lm4ve.RandomScaleTranslate', scale=(2 / 3, 3 / 2), shift=0.2),
    dict(type='lm4ve.PackPointCloud'),
]
test_pipeline = [
    dict(type='lm4ve.SamplePoints', num=1024, method='fps'),
    dict(type='lm4ve.PackPointCloud'),
]
train_dataloader = dict(
    batch_size=32,
    num_workers=8,
    drop_last=True,
    dataset=dict(
        type='lm4ve.ScanObjectNN',
        data_root='data/ScanObjectNN',
        split='train',
        variant='hardest',
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
        type='lm4ve.ScanObjectNN',
        data_root='data/ScanObjectNN',
        split='test',
        variant='hardest',
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
    dict(type='lm4ve.SamplePoints', num=1200, method='fps', fill=False),
    dict(type='lm4ve.RepeatDraws', num=10, transforms=train_pipeline[1:]),
]
