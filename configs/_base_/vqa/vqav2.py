# VQAv2: trained on its training set, validated and tested on its validation set, which
# has answers. Make the vocabulary before (docs/guides/vqa.md):
#   data/coco/{train2014,val2014,test2015}/*.jpg, data/coco/vqav2/*.json
_base_ = './images.py'

train_dataloader = dict(
    batch_size=128,
    num_workers=8,
    dataset=dict(
        type='lm4ve.VQAv2',
        split='train2014',
        vocabulary='data/coco/vqav2/vocabulary.json',
        pipeline=_base_.train_pipeline,
    ),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=128,
    num_workers=8,
    dataset=dict(type='lm4ve.VQAv2', split='val2014', pipeline=_base_.test_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
val_evaluator = dict(type='lm4ve.VQAAccuracy')
val_cfg = dict()
test_dataloader = val_dataloader
test_evaluator = val_evaluator
test_cfg = dict()
