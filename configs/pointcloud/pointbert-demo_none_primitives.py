# The embedded set of shapes with a small Point-BERT and no block.
_base_ = [
    '../_base_/pointcloud/primitives.py',
    '../_base_/pointcloud/onecycle_30e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    type='lm4ve.PointCloudClassifier',
    backbone=dict(
        type='lm4ve.PointBERT',
        embed_dims=64,
        depth=3,
        num_heads=4,
        num_groups=32,
        group_size=16,
        encoder_dims=64,
        encoder_channels=(32, 64, 96),
        mlp_ratio=2.0,
        drop_path_rate=0.0,
        token_std=0.02,
    ),
    neck=None,
    head=dict(
        type='lm4ve.PointClsHead',
        in_channels=64,
        num_classes=10,
        hidden=(128,),
        dropout=0.2,
        label_smoothing=0.1,
    ),
)
