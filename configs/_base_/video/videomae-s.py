# VideoMAE's ViT-S, fine-tuned from its pre-training on Something-Something V2
# (tools/convert_checkpoint.py video makes that file).
model = dict(
    type='Recognizer3D',
    backbone=dict(
        type='VisionTransformer',
        img_size=224,
        patch_size=16,
        embed_dims=384,
        depth=12,
        num_heads=6,
        num_frames=16,
        drop_path_rate=0.1,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='data/pretrained/videomae-s_ssv2-2400e.pth',
            prefix='backbone.',
        ),
    ),
    neck=None,
    cls_head=dict(
        type='TimeSformerHead',
        num_classes=174,
        in_channels=384,
        label_smooth_eps=0.1,
        # VideoMAE scales a std of 0.02 by 0.001.
        init_std=2e-5,
        average_clips='prob',
    ),
    data_preprocessor=dict(
        type='ActionDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        blending=dict(
            type='RandomBatchAugment',
            augments=[
                dict(type='lm4ve.ReversedMixup', alpha=0.8, num_classes=174),
                dict(type='lm4ve.ReversedCutmix', alpha=1.0, num_classes=174),
            ],
        ),
        format_shape='NCTHW',
    ),
)
