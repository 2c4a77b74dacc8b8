# A ViT on scikit-learn's digits with a frozen random block.
_base_ = './runtime.py'

default_scope = 'mmpretrain'
data_preprocessor = dict(num_classes=10, mean=[77.9] * 3, std=[95.9] * 3, to_rgb=True)
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='VisionTransformer',
        arch=dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=24),
        img_size=8,
        patch_size=2,
        out_type='raw',
        final_norm=False,
    ),
    neck=dict(
        type='LLMBlockNeck',
        in_channels=16,
        out_type='cls_token',
        init_cfg=dict(type='TruncNormal', layer='Linear', std=0.2),
        block=dict(
            type='LLMBlock',
            pretrained=False,
            seed=3,
            layers=(0, 1),
            arch=dict(
                model_type='llama',
                hidden_size=24,
                intermediate_size=32,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                vocab_size=8,
            ),
        ),
    ),
    head=dict(
        type='VisionTransformerClsHead',
        num_classes=10,
        in_channels=16,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
    ),
)
# Nothing random: a resumed run goes the way of one that was not interrupted.
pipeline = [dict(type='PackInputs')]
train_dataloader = dict(
    batch_size=16,
    num_workers=0,
    dataset=dict(
        type='lm4ve.DigitsDataset', split='train', pipeline=pipeline, indices=320
    ),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=32,
    num_workers=0,
    dataset=dict(
        type='lm4ve.DigitsDataset', split='test', pipeline=pipeline, indices=64
    ),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
val_evaluator = dict(type='Accuracy', topk=(1, 5))
test_dataloader = val_dataloader
test_evaluator = val_evaluator
