# Digits on photographs, which have masks: a 64-wide, 3-deep ViT on an 8 x 8 grid.
_base_ = [
    '../_base_/image/vit-demo.py',
    '../_base_/image/textured-digits.py',
    '../_base_/image/onecycle_100e.py',
    '../_base_/image/runtime.py',
]

model = dict(
    # Patches overlap: a token's middle 4 x 4 pixels are its own.
    backbone=dict(img_size=32, patch_size=8, patch_cfg=dict(stride=4, padding=2)),
    # At this width, the usual standard deviation of 0.02 learns much later.
    init_cfg=[
        dict(type='Xavier', layer='Linear', distribution='uniform'),
        dict(type='Constant', layer='LayerNorm', val=1.0, bias=0.0),
    ],
)
# Each epoch is 30 views of every digit, all different.
train_cfg = dict(max_epochs=3, val_interval=1)
param_scheduler = dict(eta_max=2e-3, total_steps=3)
optim_wrapper = dict(optimizer=dict(lr=2e-3))
default_hooks = dict(
    logger=dict(interval=200), checkpoint=dict(interval=1, max_keep_ckpts=1)
)
