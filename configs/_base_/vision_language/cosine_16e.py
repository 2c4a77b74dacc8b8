# The demos' schedule, over sixteen epochs with two of warm-up.
_base_ = './cosine_5e.py'

param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=0.05,
        begin=0,
        end=2,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        T_max=14,
        begin=2,
        end=16,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(max_epochs=16, val_interval=16)
