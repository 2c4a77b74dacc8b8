# ResNet-50: the block on its last map, before the pooling. There is no final norm.
_base_ = ['mmpretrain::resnet/resnet50_8xb32_in1k.py', '../_base_/llm/llama-7b.py']

model = dict(
    neck=[
        dict(type='LLMBlockNeck', in_channels=2048, norm_cfg=None, block=_base_.llm_block),
        dict(type='GlobalAveragePooling'),
    ]
)
train_dataloader = dict(dataset=dict(type='lm4ve.CheckedImageNet'))
val_dataloader = dict(dataset=dict(type='lm4ve.CheckedImageNet'))
test_dataloader = val_dataloader
custom_imports = dict(imports=['lm4ve'])
default_hooks = dict(
    checkpoint=dict(type='lm4ve.AtomicCheckpointHook', max_keep_ckpts=3),
    plain_checkpoint=dict(type='lm4ve.PlainCheckpointHook'),
)
