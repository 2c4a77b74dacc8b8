# Something-Something V2 as VideoMAE trains on it: 16 frames, one of each of 16
# segments; repeated sampling 2, no flips (left and right have meanings here);
# tests on 2 segments x 3 crops.
train_pipeline = [
    dict(type='DecordInit'),
    dict(type='UniformSample', clip_len=16),
    dict(type='DecordDecode'),
    dict(type='lm4ve.ClipRandAugment', crop=dict(type='RandomResizedCrop')),
    dict(type='Resize', scale=(224, 224), keep_ratio=False),
    # Noise that has a deviation of 1 after normalization.
    dict(
        type='RandomErasing',
        erase_prob=0.25,
        mode='rand',
        fill_color=(123.675, 116.28, 103.53),
        fill_std=(58.395, 57.12, 57.375),
    ),
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='PackActionInputs'),
]
# The middle frame of each segment. The release draws them, as in training, so that a
# checkpoint has another score each time.
val_pipeline = [
    dict(type='DecordInit'),
    dict(type='UniformSample', clip_len=16, test_mode=True),
    dict(type='DecordDecode'),
    dict(type='lm4ve.ResizeShortSide', size=224),
    dict(type='CenterCrop', crop_size=224),
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='PackActionInputs'),
]
# To the frame and the pixel as VideoMAE's release.
test_pipeline = [
    dict(type='DecordInit'),
    dict(type='lm4ve.UniformViews', clip_len=16, num_clips=2),
    dict(type='DecordDecode'),
    dict(type='lm4ve.ResizeShortSide', size=224),
    dict(type='lm4ve.ThreeCrop', crop_size=224),
    dict(type='FormatShape', input_format='NCTHW'),
    dict(type='PackActionInputs'),
]

train_dataloader = dict(
    batch_size=16,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='repeat_pseudo_collate'),
    drop_last=True,
    dataset=dict(
        type='lm4ve.CheckedRepeatAugDataset',
        num_repeats=2,
        ann_file='data/sthv2/sthv2_train_list_videos.txt',
        data_prefix=dict(video='data/sthv2/videos'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=16,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='lm4ve.CheckedVideoDataset',
        ann_file='data/sthv2/sthv2_val_list_videos.txt',
        data_prefix=dict(video='data/sthv2/videos'),
        pipeline=val_pipeline,
        test_mode=True,
    ),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='lm4ve.CheckedVideoDataset',
        ann_file='data/sthv2/sthv2_val_list_videos.txt',
        data_prefix=dict(video='data/sthv2/videos'),
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
val_evaluator = dict(type='AccMetric')
test_evaluator = val_evaluator
