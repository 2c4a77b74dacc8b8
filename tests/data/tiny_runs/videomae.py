# mmaction2's recognizer and VideoMAE's ViT, with a frozen block.
_base_ = './runtime.py'

default_scope = 'mmaction'
model = dict(
    type='Recognizer3D',
    backbone=dict(
        type='VisionTransformer',
        img_size=32,
        patch_size=8,
        embed_dims=16,
        depth=2,
        num_heads=2,
        num_frames=4,
        tubelet_size=2,
        mlp_ratio=2.0,
        return_feat_map=True,
    ),
    neck=dict(
        type='LLMBlockNeck',
        in_channels=16,
        out_type='avg_featmap',
        init_cfg=dict(type='TruncNormal', layer='Linear', std=0.2),
        block=dict(
            type='LLMBlock',
            pretrained=False,
            seed=3,
            layers=(0, 1),
            arch=dict(
                model_type='llama',
                hidden_size=24,
                intermediate_size=32,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                vocab_size=8,
            ),
        ),
    ),
    cls_head=dict(
        type='TimeSformerHead', num_classes=8, in_channels=16, average_clips='prob'
    ),
    data_preprocessor=dict(
        type='ActionDataPreprocessor',
        mean=[21.3] * 3,
        std=[53.0] * 3,
        format_shape='NCTHW',
    ),
)
pipeline = [
    dict(type='DecordInit'),
    dict(type='SampleFrames', clip_len=4, frame_interval=1, num_clips=1),
    dict(type='DecordDecode'),
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='PackActionInputs'),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    dataset=dict(
        type='lm4ve.MovingDigitsDataset',
        split='train',
        data_root='moving-digits',
        clips=dict(train=32, val=16, test=16),
        pipeline=pipeline,
    ),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=0,
    dataset=dict(
        type='lm4ve.MovingDigitsDataset',
        split='val',
        data_root='moving-digits',
        clips=dict(train=32, val=16, test=16),
        pipeline=pipeline,
        test_mode=True,
    ),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
val_evaluator = dict(type='AccMetric')
test_dataloader = val_dataloader
test_evaluator = val_evaluator
