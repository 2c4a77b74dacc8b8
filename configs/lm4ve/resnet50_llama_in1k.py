# ResNet-50: the block on its last map, before the pooling. There is no final norm.
_base_ = [
    'mmpretrain::resnet/resnet50_8xb32_in1k.py',
    '../_base_/image/checked-imagenet.py',
]

model = dict(
    neck=[
        dict(
            type='LLMBlockNeck',
            in_channels=2048,
            norm_cfg=None,
            block=dict(
                type='LLMBlock',
                checkpoint='data/llm/llama-7b',
                layers=(-1,),
                dtype='auto',
            ),
        ),
        dict(type='GlobalAveragePooling'),
    ]
)
train_dataloader = _base_.checked
val_dataloader = _base_.checked
test_dataloader = _base_.checked
default_hooks = _base_.checkpoint_hooks
randomness = _base_.fixed_seed
