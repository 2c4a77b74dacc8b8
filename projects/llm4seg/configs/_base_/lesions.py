# Pictures with a mask of one lesion, in the layout of CMUNeXt's and LLM4Seg's code:
#   images/<name>.png, masks/0/<name>.png, <set>_train.txt and <set>_val.txt of names.
# Scores are measured at each picture's own size, not at 256 x 256 as there.
data_root = 'data/busi'
metainfo = dict(classes=('background', 'lesion'), palette=[[0, 0, 0], [220, 60, 60]])
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='lm4ve.BinaryMask'),
    # As LLM4Seg's code: a turn in half of the pictures, then a mirror image in half.
    dict(type='lm4ve.RandomRotate90', prob=0.5),
    dict(
        type='RandomFlip',
        prob=[1 / 6, 1 / 6, 1 / 6],
        direction=['horizontal', 'vertical', 'diagonal'],
    ),
    dict(type='Resize', scale=(256, 256), keep_ratio=False),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(256, 256), keep_ratio=False),
    dict(type='LoadAnnotations'),
    dict(type='lm4ve.BinaryMask'),
    dict(type='PackSegInputs'),
]
dataset = dict(
    type='lm4ve.CheckedSegDataset',
    data_root=data_root,
    metainfo=metainfo,
    img_suffix='.png',
    seg_map_suffix='.png',
    data_prefix=dict(img_path='images', seg_map_path='masks/0'),
)
train_dataloader = dict(
    batch_size=8,
    num_workers=4,
    dataset=dict(**dataset, ann_file='busi_train.txt', pipeline=train_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    dataset=dict(**dataset, ann_file='busi_val.txt', pipeline=test_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='lm4ve.LesionIoU', iou_metrics=['mIoU', 'mDice'])
test_evaluator = val_evaluator
