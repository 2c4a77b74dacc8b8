# One cycle over two epochs, for the embedded rooms.
_base_ = '../onecycle.py'

optim_wrapper = dict(optimizer=dict(lr=2e-3, weight_decay=0.01), clip_grad=dict(max_norm=1.0))
param_scheduler = dict(eta_max=2e-3, total_steps=2, pct_start=0.1)
train_cfg = dict(max_epochs=2, val_interval=2)
