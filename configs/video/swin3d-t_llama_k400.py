# mmaction2's Video Swin-T on Kinetics-400 with LLaMA-7B's last block before the
# final norm. Not in the paper.
_base_ = [
    'mmaction::recognition/swin/'
    'swin-tiny-p244-w877_in1k-pre_8xb8-amp-32x2x1-30e_kinetics400-rgb.py',
    '../_base_/checkpoints.py',
]

model = dict(
    backbone=dict(type='lm4ve.RawSwinTransformer3D'),
    neck=dict(
        type='LLMBlockNeck',
        in_channels=768,
        norm_cfg=dict(type='LN', eps=1e-5),
        block=dict(
            type='LLMBlock',
            checkpoint='data/llm/llama-7b',
            layers=(-1,),
            dtype='float16',
        ),
    ),
)
train_dataloader = dict(dataset=dict(type='lm4ve.CheckedVideoDataset'))
val_dataloader = dict(dataset=dict(type='lm4ve.CheckedVideoDataset'))
test_dataloader = dict(dataset=dict(type='lm4ve.CheckedVideoDataset'))
default_hooks = _base_.checkpoint_hooks
randomness = _base_.fixed_seed
