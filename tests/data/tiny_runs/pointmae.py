# Point-MAE without a block.
_base_ = './points.py'

model = dict(
    type='lm4ve.PointCloudClassifier',
    backbone=dict(
        type='lm4ve.PointMAE',
        embed_dims=16,
        depth=1,
        num_heads=2,
        num_groups=6,
        group_size=8,
        encoder_channels=(4, 6, 8),
        mlp_ratio=2.0,
        drop_path_rate=0.0,
        init_cfg=None,
    ),
    neck=None,
    head=dict(
        type='lm4ve.PointClsHead',
        in_channels=16,
        num_classes=10,
        hidden=(12,),
        dropout=0.0,
        init_cfg=None,
    ),
)
