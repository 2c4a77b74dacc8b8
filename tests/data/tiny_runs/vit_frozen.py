# A ViT on scikit-learn's digits with a frozen random block.
_base_ = './runtime.py'

default_scope = 'mmpretrain'
data_preprocessor = dict(num_classes=10, mean=[77.9] * 3, std=[95.9] * 3, to_rgb=True)
arch = dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=24)
vit = dict(img_size=8, patch_size=2, out_type='raw', final_norm=False)
loss = dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original')
model = dict(
    type='ImageClassifier',
    backbone=dict(type='VisionTransformer', arch=arch, **vit),
    neck=dict(**_base_.llm_neck, in_channels=16, out_type='cls_token'),
    head=dict(
        type='VisionTransformerClsHead', num_classes=10, in_channels=16, loss=loss
    ),
)
data = dict(type='lm4ve.DigitsDataset', pipeline=[dict(type='PackInputs')])
train = dict(data, split='train', indices=320)
test = dict(data, split='test', indices=64)
train_dataloader = dict(batch_size=16, dataset=train, sampler=_base_.shuffled)
val_dataloader = test_dataloader = dict(
    batch_size=32, dataset=test, sampler=_base_.in_order
)
val_evaluator = test_evaluator = dict(type='Accuracy', topk=(1, 5))
