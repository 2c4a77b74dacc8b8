# Point-MAE's checkpoint in the same trunk: a wider group encoder, 128 groups of
# all 2048 points, batch norm in the head. The rest is Point-BERT's recipe.
_base_ = './pointbert_scanobjectnn-hardest.py'

model = dict(
    checkpoint='data/pretrained/point-mae.pth',
    backbone=dict(
        _delete_=True,
        type='lm4ve.PointMAE',
        embed_dims=384,
        depth=12,
        num_heads=6,
        num_groups=128,
        group_size=32,
        drop_path_rate=0.1,
    ),
    head=dict(hidden=(256, 256), norm=True),
)
train_pipeline = [
    dict(type='lm4ve.SamplePoints', num=2048, method='random'),
    dict(type='lm4ve.RandomScaleTranslate', scale=(2 / 3, 3 / 2), shift=0.2),
    dict(type='lm4ve.PackPointCloud'),
]
test_pipeline = [
    dict(type='lm4ve.SamplePoints', num=2048, method='fps'),
    dict(type='lm4ve.PackPointCloud'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
tta_pipeline = [dict(type='lm4ve.RepeatDraws', num=10, transforms=train_pipeline)]
