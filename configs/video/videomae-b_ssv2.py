# VideoMAE ViT-B on Something-Something V2, the paper's baseline: 30 epochs, 5e-4.
_base_ = './videomae-s_ssv2.py'

model = dict(
    backbone=dict(
        embed_dims=768,
        num_heads=12,
        init_cfg=dict(
            checkpoint='data/pretrained/videomae-b_ssv2-2400e.pth')),
    cls_head=dict(in_channels=768))
optim_wrapper = dict(
    optimizer=dict(lr=5e-4), paramwise_cfg=dict(decay_rate=0.75))
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=2e-3,
        by_epoch=True,
        begin=0,
        end=5,
        convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        T_max=25,
        eta_min_ratio=2e-3,
        by_epoch=True,
        begin=5,
        end=30,
        convert_to_iter_based=True)
]
train_cfg = dict(max_epochs=30)
