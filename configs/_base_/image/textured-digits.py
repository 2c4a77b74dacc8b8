# Digits on photographs, with masks: 32 x 32 pixels, 10 classes, 1,257 / 540 digits.
data_preprocessor = dict(
    num_classes=10,
    # Measured on the training split, in the pixel range 0 to 255.
    mean=[114.0, 114.0, 114.0],
    std=[50.0, 50.0, 50.0],
    to_rgb=True,
)

# `Resize` does nothing to the set's own images; it is for pictures that come
# in through an inferencer.
test_pipeline = [dict(type='Resize', scale=(32, 32)), dict(type='PackInputs')]
train_pipeline = [dict(type='PackInputs')]

train_dataloader = dict(
    batch_size=32,
    num_workers=0,
    dataset=dict(
        type='lm4ve.TexturedDigits',
        split='train',
        # An "epoch" is this many views of each digit, all different.
        variants=30,
        max_angle=15.0,
        pipeline=train_pipeline,
    ),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=270,
    num_workers=0,
    dataset=dict(type='lm4ve.TexturedDigits', split='test', pipeline=test_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
val_evaluator = dict(type='Accuracy', topk=(1,))
test_dataloader = val_dataloader
test_evaluator = val_evaluator
