# ModelNet40, 4096 points of 8192 that are stored in farthest-point order.
_base_ = './modelnet40-1k.py'

train_pipeline = _base_.train_pipeline
train_pipeline[1]['num'] = 4800
train_pipeline[2]['num'] = 4096
test_pipeline = _base_.test_pipeline
test_pipeline[1]['num'] = 4096
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
tta_pipeline = [
    dict(type='lm4ve.NormalizeToUnitSphere'),
    dict(type='lm4ve.SamplePoints', num=4800, method='first', fill=False),
    dict(type='lm4ve.RepeatDraws', num=10, transforms=train_pipeline[2:]),
]
