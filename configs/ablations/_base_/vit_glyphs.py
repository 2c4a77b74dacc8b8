# An encoder for `lm4ve try`: the demos' ViT on the small letters of many fonts, as
# tools/image/picture_sets.py writes them. Patches of 8 x 8 pixels, 64 tokens.
_base_ = [
    '../../_base_/image/vit-demo.py',
    '../../_base_/image/onecycle_100e.py',
    '../../_base_/image/runtime.py',
]

model = dict(
    backbone=dict(img_size=64, patch_size=8),
    head=dict(num_classes=26),
    # At this width, the usual standard deviation of 0.02 learns much later.
    init_cfg=[
        dict(type='Xavier', layer='Linear', distribution='uniform'),
        dict(type='Constant', layer='LayerNorm', val=1.0, bias=0.0),
    ],
)
data_preprocessor = dict(
    num_classes=26, mean=[243.4, 243.4, 243.4], std=[50.5, 50.5, 50.5], to_rgb=True
)
_load = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(64, 64))]
train_pipeline = [
    *_load,
    dict(type='Rotate', angle=15.0, prob=0.7, random_negative_prob=0.5, pad_val=255),
    dict(type='RandomCrop', crop_size=64, padding=6, pad_val=255),
    dict(type='PackInputs'),
]
test_pipeline = [*_load, dict(type='PackInputs')]
train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    dataset=dict(
        type='CustomDataset',
        data_root='data/glyphs',
        ann_file='train.txt',
        pipeline=train_pipeline,
    ),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=128,
    num_workers=0,
    dataset=dict(
        type='CustomDataset',
        data_root='data/glyphs',
        ann_file='val.txt',
        pipeline=test_pipeline,
    ),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
val_evaluator = dict(type='Accuracy', topk=(1,))
test_dataloader = val_dataloader
test_evaluator = val_evaluator
