# Swin-T: the block on its last map, before the final norm (which the neck has).
_base_ = [
    'mmpretrain::swin_transformer/swin-tiny_16xb64_in1k.py',
    '../_base_/image/checked-imagenet.py',
]

model = dict(
    backbone=dict(norm_cfg=None),
    neck=[
        dict(
            type='LLMBlockNeck',
            in_channels=768,
            norm_cfg=dict(type='LN', eps=1e-5),
            block=dict(
                type='LLMBlock',
                checkpoint='data/llm/llama-7b',
                layers=(-1,),
                dtype='auto',
            ),
        ),
        dict(type='GlobalAveragePooling'),
    ],
)
train_dataloader = _base_.checked
val_dataloader = _base_.checked
test_dataloader = _base_.checked
default_hooks = _base_.checkpoint_hooks
randomness = _base_.fixed_seed
