# AdamW 5e-4, cosine over 60 epochs, gradients clipped at 0.1: VectorNet's recipe.
optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=5e-4, weight_decay=1e-4),
    clip_grad=dict(max_norm=0.1),
)
param_scheduler = dict(
    type='CosineAnnealingLR', T_max=60, by_epoch=True, convert_to_iter_based=True
)
train_cfg = dict(by_epoch=True, max_epochs=60, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=32)
