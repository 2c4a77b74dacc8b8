# Swin-T: the block on its last map, before the final norm (which the neck has).
_base_ = ['mmpretrain::swin_transformer/swin-tiny_16xb64_in1k.py', '../_base_/llm/llama-7b.py']

model = dict(
    backbone=dict(norm_cfg=None),
    neck=[
        dict(
            type='LLMBlockNeck',
            in_channels=768,
            norm_cfg=dict(type='LN', eps=1e-5),
            block=_base_.llm_block,
        ),
        dict(type='GlobalAveragePooling'),
    ],
)
train_dataloader = dict(dataset=dict(type='lm4ve.CheckedImageNet'))
val_dataloader = dict(dataset=dict(type='lm4ve.CheckedImageNet'))
test_dataloader = val_dataloader
custom_imports = dict(imports=['lm4ve'])
default_hooks = dict(
    checkpoint=dict(type='lm4ve.AtomicCheckpointHook', max_keep_ckpts=3),
    plain_checkpoint=dict(type='lm4ve.PlainCheckpointHook'),
)
