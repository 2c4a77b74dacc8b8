# scikit-learn's handwritten digits: 8 x 8 pixels, 10 classes, 1,257 / 540.
data_preprocessor = dict(
    num_classes=10,
    # Measured on the training split, in the pixel range 0 to 255.
    mean=[77.9, 77.9, 77.9],
    std=[95.9, 95.9, 95.9],
    to_rgb=True,
)

# `Resize` does nothing to the set's own images; it is for pictures that come
# in through an inferencer.
test_pipeline = [dict(type='Resize', scale=(8, 8)), dict(type='PackInputs')]
# A mirrored digit is no digit, so that `--tta` turns them a little.
tta_pipeline = [
    dict(type='Resize', scale=(8, 8)),
    dict(
        type='TestTimeAug',
        transforms=[
            [
                dict(type='Rotate', angle=8.0, prob=0.0),
                dict(type='Rotate', angle=8.0, prob=1.0, random_negative_prob=0.0),
                dict(type='Rotate', angle=8.0, prob=1.0, random_negative_prob=1.0),
            ],
            [dict(type='PackInputs')],
        ],
    ),
]
# Digits turned a little or shifted by a pixel are still those digits.
train_pipeline = [
    dict(type='Rotate', angle=15.0, prob=0.7, random_negative_prob=0.5),
    dict(type='RandomCrop', crop_size=8, padding=1),
    dict(type='PackInputs'),
]

train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    dataset=dict(type='lm4ve.DigitsDataset', split='train', pipeline=train_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=270,
    num_workers=0,
    dataset=dict(type='lm4ve.DigitsDataset', split='test', pipeline=test_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
val_evaluator = dict(type='Accuracy', topk=(1,))
test_dataloader = val_dataloader
test_evaluator = val_evaluator
