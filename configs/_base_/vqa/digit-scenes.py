# Scenes of scikit-learn's digits: 48 x 48 pixels, 4,000 / 500 scenes with three
# captions each. To choose settings, validate on split='val'. Written to
# data/digit-scenes on first use.
train_pipeline = [dict(type='LoadImageFromFile'), dict(type='lm4ve.PackVisionLanguage')]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmpretrain.Resize', scale=(48, 48)),
    dict(type='lm4ve.PackVisionLanguage'),
]
train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    # A true caption is ranked against three of other scenes.
    dataset=dict(
        type='lm4ve.DigitScenes',
        split='train',
        num_negatives=3,
        pipeline=train_pipeline,
    ),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=100,
    num_workers=0,
    dataset=dict(type='lm4ve.DigitScenes', split='test', pipeline=test_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
val_evaluator = dict(type='lm4ve.RetrievalRecall')
test_dataloader = val_dataloader
test_evaluator = val_evaluator
