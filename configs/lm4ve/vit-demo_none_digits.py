# The embedded default without a block: a 64-wide, 3-deep ViT on 2 x 2 patches.
_base_ = [
    '../_base_/image/digits.py', '../_base_/image/onecycle_100e.py',
    '../_base_/default_runtime.py'
]

model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='VisionTransformer',
        arch=dict(
            embed_dims=64,
            num_layers=3,
            num_heads=4,
            feedforward_channels=128),
        img_size=8,
        patch_size=2),
    neck=None,
    head=dict(
        type='VisionTransformerClsHead',
        num_classes=10,
        in_channels=64,
        loss=dict(
            type='LabelSmoothLoss', label_smooth_val=0.1, mode='original')),
    init_cfg=[
        dict(type='TruncNormal', layer='Linear', std=.02),
        dict(type='Constant', layer='LayerNorm', val=1., bias=0.),
    ])
