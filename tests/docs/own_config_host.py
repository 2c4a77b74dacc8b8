# What a host's base config gives: a model and its data, and no hook of ours.
default_scope = 'mmpretrain'
classes = ['cat', 'dog']
data_preprocessor = dict(num_classes=2, mean=[127.0] * 3, std=[64.0] * 3, to_rgb=True)
sizes = dict(embed_dims=384, num_layers=1, num_heads=2, feedforward_channels=8)
model = dict(
    type='ImageClassifier',
    backbone=dict(type='VisionTransformer', arch=sizes, img_size=16, patch_size=8),
    neck=None,
    head=dict(type='VisionTransformerClsHead', num_classes=2, in_channels=384),
)
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(16, 16)),
    dict(type='PackInputs'),
]
data = dict(type='CustomDataset', metainfo=dict(classes=classes), pipeline=pipeline)
in_order = dict(type='DefaultSampler', shuffle=False)
shuffled = dict(type='DefaultSampler', shuffle=True)
train_dataloader = dict(
    batch_size=2, dataset=dict(data, data_root='photos/train'), sampler=shuffled
)
val_dataloader = dict(
    batch_size=2, dataset=dict(data, data_root='photos/val'), sampler=in_order
)
test_dataloader = val_dataloader
val_evaluator = test_evaluator = dict(type='Accuracy')
val_cfg = test_cfg = dict()
train_cfg = dict(by_epoch=True, max_epochs=2, val_interval=1)
optim_wrapper = dict(optimizer=dict(type='AdamW', lr=1e-3))
param_scheduler = dict(type='OneCycleLR', eta_max=1e-3, total_steps=6, by_epoch=False)
