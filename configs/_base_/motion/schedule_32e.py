# AdamW 5e-4, a quarter after 20, 24 and 28 of 32 epochs: the paper's recipe of
# mmTransformer; gradients clipped at 0.1 as in mmTransformer's own.
optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=5e-4, weight_decay=1e-4),
    clip_grad=dict(max_norm=0.1))
param_scheduler = dict(
    type='MultiStepLR', milestones=[20, 24, 28], gamma=0.25, by_epoch=True)
train_cfg = dict(by_epoch=True, max_epochs=32, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=32)
