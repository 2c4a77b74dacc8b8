# ModelNet40, 8192 points of 8192 that are stored in farthest-point order.
_base_ = './modelnet40-1k.py'

train_pipeline = [
    dict(type='lm4ve.NormalizeToUnitSphere'),
    dict(type='lm4ve.SamplePoints', num=8192, method='first', fill=False),
    dict(type='lm4ve.SamplePoints', num=8192, method='random'),
    *_base_.train_pipeline[3:],
]
test_pipeline = [
    dict(type='lm4ve.NormalizeToUnitSphere'),
    dict(type='lm4ve.SamplePoints', num=8192, method='first'),
    dict(type='lm4ve.PackPointCloud'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
tta_pipeline = [
    *train_pipeline[:2],
    dict(type='lm4ve.RepeatDraws', num=10, transforms=train_pipeline[2:]),
]
