# The data of pointbert.py and pointmae.py: thirty shapes.
_base_ = './runtime.py'

default_scope = 'mmengine'
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    drop_last=True,
    dataset=dict(
        type='lm4ve.PrimitivesDataset',
        split='train',
        per_class=3,
        num_points=48,
        cache_dir='points',
        pipeline=[
            dict(type='lm4ve.SamplePoints', num=48, method='first'),
            dict(type='lm4ve.PackPointCloud'),
        ],
    ),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=15,
    num_workers=0,
    dataset=train_dataloader['dataset'],
    sampler=dict(type='DefaultSampler', shuffle=False),
)
val_evaluator = dict(type='lm4ve.PointCloudAccuracy')
test_dataloader = val_dataloader
test_evaluator = val_evaluator
optim_wrapper = dict(optimizer=dict(lr=0.5))
