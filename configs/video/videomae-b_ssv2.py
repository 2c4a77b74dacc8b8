# VideoMAE ViT-B on Something-Something V2, the paper's baseline: 30 epochs, 5e-4.
_base_ = './videomae-s_ssv2.py'

model = dict(
    backbone=dict(
        embed_dims=768,
        num_heads=12,
        init_cfg=dict(checkpoint='data/pretrained/videomae-b_ssv2-2400e.pth'),
    ),
    cls_head=dict(in_channels=768),
)
optim_wrapper = dict(optimizer=dict(lr=5e-4), paramwise_cfg=dict(decay_rate=0.75))
param_scheduler = [
    dict(_base_.param_scheduler[0], start_factor=2e-3),
    dict(_base_.param_scheduler[1], T_max=25, eta_min_ratio=2e-3, end=30),
]
train_cfg = dict(max_epochs=30)
