# The blocks' paper on SQA3D: AdamW, batch 32, 30 epochs, a tenth of the rate after 10,
# 15 and 20 of them. It names no rate, decay or clipping: these are the release's, which
# clips each number of a gradient.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=5e-4, weight_decay=1e-5),
    clip_grad=dict(type='value', clip_value=1.0),
)
param_scheduler = dict(
    type='MultiStepLR', milestones=[10, 15, 20], gamma=0.1, by_epoch=True
)
train_cfg = dict(by_epoch=True, max_epochs=30, val_interval=1)
auto_scale_lr = dict(base_batch_size=32)
