# ConvNeXt-T: the block on its last map, then pooling and the final norm.
_base_ = [
    'mmpretrain::convnext/convnext-tiny_32xb128_in1k.py',
    '../_base_/image/checked-imagenet.py',
]

model = dict(
    backbone=dict(type='lm4ve.RawConvNeXt'),
    neck=dict(
        type='LLMBlockNeck',
        in_channels=768,
        out_type='avg_featmap',
        block=dict(
            type='LLMBlock', checkpoint='data/llm/llama-7b', layers=(-1,), dtype='auto'
        ),
    ),
)
custom_hooks = [dict(type='EMAHook', momentum=1e-4, priority='ABOVE_NORMAL')]
train_dataloader = _base_.checked
val_dataloader = _base_.checked
test_dataloader = _base_.checked
default_hooks = _base_.checkpoint_hooks
randomness = _base_.fixed_seed
