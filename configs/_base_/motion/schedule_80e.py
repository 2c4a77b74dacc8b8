# RealMotion's and PanguMotion's recipe: AdamW 1e-3 at 4 x 32 scenes, decay of matrices
# and kernels alone, 13 epochs of warm-up, cosine to 1e-5 at epoch 80, gradients clipped
# at 5, batch norms over all processes. The rate changes once an epoch.
optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=1e-2),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        custom_keys={
            'in_proj_bias': dict(decay_mult=0.0),
            'encoder.kinds': dict(decay_mult=0.0),
            'encoder.lane_kind': dict(decay_mult=0.0),
        },
    ),
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1 / 13, by_epoch=True, begin=0, end=13),
    dict(
        type='CosineAnnealingLR',
        T_max=67,
        eta_min=1e-5,
        by_epoch=True,
        begin=13,
        end=80,
    ),
]
train_cfg = dict(by_epoch=True, max_epochs=80, val_interval=1)
val_cfg = dict()
test_cfg = dict()
sync_bn = 'torch'
auto_scale_lr = dict(base_batch_size=128)
