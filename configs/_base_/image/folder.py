# Pictures of your own, for fine-tuning: data/photos/{train,val}/<class>/*.jpg. A config
# names its folder and its classes:
#   mine = dict(dataset=dict(data_root='...', metainfo=dict(classes=[...])))
#   train_dataloader = mine
# and the same for val_dataloader and test_dataloader. Where a mirrored picture is of
# another class, leave RandomFlip out.
data_preprocessor = dict(
    # Pixels of -1 to 1, as TensorFlow's encoders take them.
    mean=[127.5, 127.5, 127.5],
    std=[127.5, 127.5, 127.5],
    to_rgb=True,
)

test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=182, edge='short'),
    dict(type='CenterCrop', crop_size=160),
    dict(type='PackInputs'),
]
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=160, crop_ratio_range=(0.35, 1.0)),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]

photos = dict(
    type='lm4ve.CheckedImageFolder',
    data_root='data/photos',
    metainfo=dict(classes=['cat', 'dog']),
)
train_dataloader = dict(
    batch_size=32,
    num_workers=2,
    dataset=dict(**photos, data_prefix='train', pipeline=train_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=64,
    num_workers=2,
    dataset=dict(**photos, data_prefix='val', pipeline=test_pipeline, test_mode=True),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
val_evaluator = dict(type='Accuracy', topk=(1,))
test_dataloader = val_dataloader
# `lm4ve test` prints a row for each class.
test_evaluator = [dict(type='Accuracy', topk=(1,)), dict(type='ConfusionMatrix')]
