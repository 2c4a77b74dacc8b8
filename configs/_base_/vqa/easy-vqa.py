# easy-vqa 1.0: 64 x 64 pixels, 13 answers, 38,575 / 9,673 questions about 4,000 / 1,000
# images, all out of a package. To choose settings, train on split='fit' and validate on
# 'val'.
train_pipeline = [
    dict(type='LoadImageFromFile'),
    # A mirrored or shifted shape is that shape. Colors are what is asked for.
    dict(type='mmpretrain.RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='mmpretrain.RandomCrop', crop_size=64, padding=4, padding_mode='edge'),
    dict(type='lm4ve.PackVisionLanguage'),
]
# `Resize` does nothing to the set's own images; it is for pictures that come in through
# an inferencer.
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmpretrain.Resize', scale=(64, 64)),
    dict(type='lm4ve.PackVisionLanguage'),
]
train_dataloader = dict(
    batch_size=64,  # images
    num_workers=0,
    dataset=dict(
        type='lm4ve.EasyVQA',
        split='train',
        questions_per_image=3,  # of about ten
        pipeline=train_pipeline,
    ),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=256,
    num_workers=0,
    dataset=dict(type='lm4ve.EasyVQA', split='test', pipeline=test_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
val_evaluator = dict(type='lm4ve.VQAAccuracy')
test_dataloader = val_dataloader
test_evaluator = val_evaluator
