# The demos' schedule: AdamW, a warm-up over one epoch and half a cosine over four. The
# image encoder starts at random and learns at the base rate. What follows it learns
# slower: the fusion, with norms after each part, does not bear such rates.
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='lm4ve.METEROptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.05),
    paramwise_cfg=dict(head=0.4, cross_modal=0.4, neck=0.4),
    clip_grad=dict(max_norm=10.0),
)
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=0.05,
        begin=0,
        end=1,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        T_max=4,
        begin=1,
        end=5,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(by_epoch=True, max_epochs=5, val_interval=5)
val_cfg = dict()
test_cfg = dict()
