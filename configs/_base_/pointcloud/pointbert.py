# Point-BERT as published: 384 wide, 12 deep, 64 groups of 32 of 1024 points.
model = dict(
    type='lm4ve.PointCloudClassifier',
    # Converted from the published pre-training on ShapeNet, see
    # docs/guides/point_clouds.md; None trains from scratch.
    checkpoint='data/pretrained/point-bert.pth',
    backbone=dict(
        type='lm4ve.PointBERT',
        embed_dims=384,
        depth=12,
        num_heads=6,
        num_groups=64,
        group_size=32,
        encoder_dims=256,
        drop_path_rate=0.1,
    ),
    neck=None,
    head=dict(
        type='lm4ve.PointClsHead',
        in_channels=384,
        num_classes=15,
        hidden=(256,),
        dropout=0.5,
        label_smoothing=0.2,
    ),
)
