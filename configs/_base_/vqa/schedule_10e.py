# METER's fine-tuning for ten epochs: AdamW at 5e-6 and batch 512, the heads 50 times as
# fast (VQAv2; retrieval sets 5), the fusion 5 times and, for the mappers around a block,
# 10 times; a tenth of warm-up, then a straight line to zero. As in METER, an update adds
# up the gradients of as many iterations as make up 512 samples on all GPUs.
# METER trains in 32 bits; --amp is ours. The fork that the blocks' paper followed
# (github.com/bfshi/AbSViT, 224 pixels) differs:
#   --cfg-options optim_wrapper.optimizer.lr=1e-5
# optim_wrapper.paramwise_cfg.cross_modal=10
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='lm4ve.METEROptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=5e-6, betas=(0.9, 0.98), weight_decay=0.01),
    paramwise_cfg=dict(head=50, cross_modal=5, neck=10),
    accumulative_counts='auto',
)
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-4,
        begin=0,
        end=1,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
    dict(
        type='PolyLR',
        power=1.0,
        eta_min=0.0,
        begin=1,
        end=10,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(by_epoch=True, max_epochs=10, val_interval=1)
auto_scale_lr = dict(base_batch_size=512)
