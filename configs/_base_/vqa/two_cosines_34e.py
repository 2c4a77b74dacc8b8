# The demos' schedule for questions, of which the first ten epochs ask only some: two
# epochs of warm-up, half a cosine to 40 % of the rate, and another one to zero for all
# questions.
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
        T_max=8,
        eta_min_ratio=0.4,
        begin=2,
        end=10,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        T_max=24,
        begin=10,
        end=34,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(max_epochs=34, val_interval=34)
