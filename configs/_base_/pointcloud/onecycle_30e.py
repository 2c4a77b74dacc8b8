# One cycle over 30 epochs, for the embedded set of shapes.
_base_ = '../onecycle.py'

optim_wrapper = dict(
    optimizer=dict(lr=2e-3, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
    clip_grad=dict(max_norm=10.0),
)
param_scheduler = dict(eta_max=2e-3, total_steps=30)
train_cfg = dict(max_epochs=30, val_interval=10)
