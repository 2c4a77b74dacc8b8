# The embedded default without a block: a 64-wide, 3-deep ViT on 2 x 2 patches.
_base_ = [
    '../_base_/image/vit-demo.py',
    '../_base_/image/digits.py',
    '../_base_/image/onecycle_100e.py',
    '../_base_/image/runtime.py',
]

model = dict(
    backbone=dict(img_size=8, patch_size=2),
    init_cfg=[
        dict(type='TruncNormal', layer='Linear', std=0.02),
        dict(type='Constant', layer='LayerNorm', val=1.0, bias=0.0),
    ],
)
