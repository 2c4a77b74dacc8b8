# mmaction2's TSN-R50 on Kinetics-400 with LLaMA-7B's last block on the last map:
# the tokens of a clip's eight frames attend to each other. Not in the paper.
_base_ = [
    'mmaction::recognition/tsn/tsn_imagenet-pretrained-r50_8xb32-1x1x8-100e_kinetics400-rgb.py',
    '../_base_/checkpoints.py',
]

model = dict(
    type='lm4ve.Recognizer2D',
    frames_per_clip=8,
    neck=dict(
        type='LLMBlockNeck',
        in_channels=2048,
        norm_cfg=None,
        block=dict(
            type='LLMBlock', checkpoint='data/llm/llama-7b', layers=(-1,), dtype='auto'
        ),
    ),
)
# Eight frames a clip in tests too, in ten crops.
test_pipeline = [
    dict(type='DecordInit'),
    dict(
        type='SampleFrames', clip_len=1, frame_interval=1, num_clips=8, test_mode=True
    ),
    dict(type='DecordDecode'),
    dict(type='Resize', scale=(-1, 256)),
    dict(type='TenCrop', crop_size=224),
    dict(type='FormatShape', input_format='NCHW'),
    dict(type='PackActionInputs'),
]
train_dataloader = dict(dataset=dict(type='lm4ve.CheckedVideoDataset'))
val_dataloader = dict(dataset=dict(type='lm4ve.CheckedVideoDataset'))
test_dataloader = dict(
    dataset=dict(type='lm4ve.CheckedVideoDataset', pipeline=test_pipeline)
)
default_hooks = _base_.checkpoint_hooks
randomness = _base_.fixed_seed
