# One cycle over 30 epochs: small data on a CPU.
_base_ = '../onecycle.py'

optim_wrapper = dict(
    optimizer=dict(lr=2e-3, weight_decay=1e-4), clip_grad=dict(max_norm=5.0)
)
param_scheduler = dict(eta_max=2e-3, total_steps=30)
train_cfg = dict(max_epochs=30, val_interval=10)
auto_scale_lr = dict(base_batch_size=32)
