# The rooms' schedule: AdamW for two epochs of 1,200 steps. The fusion, with norms after
# each part, does not bear the rate at which VoteNet learns: all objects would become
# alike in it.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.01),
    paramwise_cfg=dict(
        custom_keys={
            'fusion.': dict(lr_mult=0.5),
            'text_transform.': dict(lr_mult=0.5),
            'neck.': dict(lr_mult=0.5),
            'pools.': dict(lr_mult=0.5),
        }
    ),
    clip_grad=dict(max_norm=10.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, begin=0, end=200, by_epoch=False),
    dict(type='CosineAnnealingLR', T_max=2200, begin=200, end=2400, by_epoch=False),
]
train_cfg = dict(by_epoch=True, max_epochs=2, val_interval=1)
val_cfg = dict()
test_cfg = dict()
