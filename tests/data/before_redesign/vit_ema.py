# DeiT's EMA, kept beside the weights.
_base_ = './vit.py'

custom_hooks = [dict(type='lm4ve.KeptEMAHook', momentum=0.1, priority='ABOVE_NORMAL')]
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-2, weight_decay=0.05)
)
param_scheduler = dict(
    _delete_=True,
    type='OneCycleLR',
    eta_max=1e-2,
    total_steps=3,
    by_epoch=True,
    convert_to_iter_based=True,
)
