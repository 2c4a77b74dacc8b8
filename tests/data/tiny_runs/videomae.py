# mmaction2's recognizer and VideoMAE's ViT, with a frozen block.
_base_ = './runtime.py'

default_scope = 'mmaction'
model = dict(
    type='Recognizer3D',
    backbone=dict(
        type='VisionTransformer', img_size=32, patch_size=8, embed_dims=16, depth=2, num_heads=2,
        num_frames=4, tubelet_size=2, mlp_ratio=2.0, return_feat_map=True),
    neck=dict(**_base_.llm_neck, in_channels=16, out_type='avg_featmap'),
    cls_head=dict(type='TimeSformerHead', num_classes=8, in_channels=16, average_clips='prob'),
    data_preprocessor=dict(
        type='ActionDataPreprocessor', mean=[21.3] * 3, std=[53.0] * 3, format_shape='NCTHW'))
pipeline = [
    dict(type='DecordInit'),
    dict(type='SampleFrames', clip_len=4, frame_interval=1, num_clips=1),
    dict(type='DecordDecode'),
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='PackActionInputs'),
]
data = dict(
    type='lm4ve.MovingDigitsDataset', data_root='moving-digits', pipeline=pipeline,
    clips=dict(train=32, val=16, test=16))
train_dataloader = dict(
    batch_size=8, dataset=dict(data, split='train'),
    sampler=dict(type='DefaultSampler', shuffle=True))
val_dataloader = test_dataloader = dict(
    batch_size=8, dataset=dict(data, split='val', test_mode=True),
    sampler=dict(type='DefaultSampler', shuffle=False))
val_evaluator = test_evaluator = dict(type='AccMetric')
