# One cycle over 30 epochs, for the embedded set of shapes.
optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=2e-3, weight_decay=.05),
    paramwise_cfg=dict(norm_decay_mult=0., bias_decay_mult=0.),
    clip_grad=dict(max_norm=10.))
param_scheduler = dict(
    type='OneCycleLR',
    eta_max=2e-3,
    total_steps=30,
    by_epoch=True,
    convert_to_iter_based=True)
train_cfg = dict(by_epoch=True, max_epochs=30, val_interval=10)
val_cfg = dict()
test_cfg = dict()
