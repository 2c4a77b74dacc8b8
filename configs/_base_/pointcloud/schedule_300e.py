# Point-BERT's fine-tuning: AdamW 5e-4 at batch 32, 10 epochs of warm-up, cosine.
optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=5e-4, weight_decay=0.05),
    paramwise_cfg=dict(
        # No decay of vectors and of the class token.
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        flat_decay_mult=0.0,
        custom_keys={'.cls_token': dict(decay_mult=0.0)},
    ),
    clip_grad=dict(max_norm=10.0),
)
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=2e-3,
        begin=0,
        end=10,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        T_max=290,
        eta_min=1e-6,
        begin=10,
        end=300,
        by_epoch=True,
    ),
]
train_cfg = dict(by_epoch=True, max_epochs=300, val_interval=10)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=32)
