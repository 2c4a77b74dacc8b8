# mmaction2's recognizer and VideoMAE's ViT, with a frozen block.
_base_ = './runtime.py'

default_scope = 'mmaction'
vit = dict(
    img_size=32, patch_size=8, embed_dims=16, depth=2, num_heads=2, mlp_ratio=2.0
)
tubes = dict(num_frames=4, tubelet_size=2, return_feat_map=True)
pixels = dict(mean=[21.3] * 3, std=[53.0] * 3, format_shape='NCTHW')
model = dict(
    type='Recognizer3D',
    backbone=dict(type='VisionTransformer', **vit, **tubes),
    neck=dict(**_base_.llm_neck, in_channels=16, out_type='avg_featmap'),
    cls_head=dict(
        type='TimeSformerHead', num_classes=8, in_channels=16, average_clips='prob'
    ),
    data_preprocessor=dict(type='ActionDataPreprocessor', **pixels),
)
pipeline = [
    dict(type='DecordInit'),
    dict(type='SampleFrames', clip_len=4, frame_interval=1, num_clips=1),
    dict(type='DecordDecode'),
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='PackActionInputs'),
]
clips = dict(data_root='moving-digits', clips=dict(train=32, val=16, test=16))
data = dict(type='lm4ve.MovingDigitsDataset', pipeline=pipeline, **clips)
train = dict(data, split='train')
val = dict(data, split='val', test_mode=True)
train_dataloader = dict(batch_size=8, dataset=train, sampler=_base_.shuffled)
val_dataloader = test_dataloader = dict(
    batch_size=8, dataset=val, sampler=_base_.in_order
)
val_evaluator = test_evaluator = dict(type='AccMetric')
