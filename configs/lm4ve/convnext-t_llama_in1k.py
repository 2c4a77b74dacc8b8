# ConvNeXt-T: the block on its last map, then pooling and the final norm.
_base_ = ['mmpretrain::convnext/convnext-tiny_32xb128_in1k.py', '../_base_/llm/llama-7b.py']

model = dict(
    backbone=dict(type='lm4ve.RawConvNeXt'),
    neck=dict(type='LLMBlockNeck', in_channels=768, out_type='avg_featmap', block=_base_.llm_block),
)
custom_hooks = [dict(type='EMAHook', momentum=1e-4, priority='ABOVE_NORMAL')]
train_dataloader = dict(dataset=dict(type='lm4ve.CheckedImageNet'))
val_dataloader = dict(dataset=dict(type='lm4ve.CheckedImageNet'))
test_dataloader = val_dataloader
custom_imports = dict(imports=['lm4ve'])
default_hooks = dict(
    checkpoint=dict(type='lm4ve.AtomicCheckpointHook', max_keep_ckpts=3),
    plain_checkpoint=dict(type='lm4ve.PlainCheckpointHook'),
)
