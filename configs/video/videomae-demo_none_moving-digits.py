# The embedded default of action recognition without a block: VideoMAE's ViT,
# 64 wide and 3 deep, on tubes of 4 x 8 x 8 pixels.
_base_ = [
    '../_base_/video/moving-digits.py',
    '../_base_/onecycle.py',
    '../_base_/video/runtime.py',
]

model = dict(
    type='Recognizer3D',
    backbone=dict(
        type='VisionTransformer',
        img_size=32,
        patch_size=8,
        embed_dims=64,
        depth=3,
        num_heads=4,
        num_frames=8,
        tubelet_size=4,
    ),
    neck=None,
    cls_head=dict(
        type='TimeSformerHead', num_classes=8, in_channels=64, average_clips='prob'
    ),
    data_preprocessor=dict(
        type='ActionDataPreprocessor',
        # Measured on the training split.
        mean=[21.3, 21.3, 21.3],
        std=[53.0, 53.0, 53.0],
        format_shape='NCTHW',
    ),
)

optim_wrapper = dict(
    optimizer=dict(lr=1e-3, weight_decay=0.05),
    # Without it single steps have undone all that was learned.
    clip_grad=dict(max_norm=1.0),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
)
param_scheduler = dict(eta_max=1e-3, total_steps=7)
train_cfg = dict(max_epochs=7, val_interval=7)
auto_scale_lr = dict(base_batch_size=32)
