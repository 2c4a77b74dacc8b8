# The demos' ViT, 64 wide and 3 deep, without a block. A config adds the sizes of the
# image and of the patches, and the initialization.
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='VisionTransformer',
        arch=dict(embed_dims=64, num_layers=3, num_heads=4, feedforward_channels=128),
    ),
    neck=None,
    head=dict(
        type='VisionTransformerClsHead',
        num_classes=10,
        in_channels=64,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
    ),
)
