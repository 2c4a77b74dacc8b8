# One cycle over 100 epochs: small data on a CPU.
_base_ = '../onecycle.py'

optim_wrapper = dict(
    optimizer=dict(lr=3e-3, weight_decay=0.05),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        flat_decay_mult=0.0,
        custom_keys={
            '.cls_token': dict(decay_mult=0.0),
            '.pos_embed': dict(decay_mult=0.0),
        },
    ),
)
param_scheduler = dict(eta_max=3e-3, total_steps=100)
train_cfg = dict(max_epochs=100, val_interval=20)
auto_scale_lr = dict(base_batch_size=64)
