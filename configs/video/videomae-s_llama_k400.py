# VideoMAE ViT-S with LLaMA-7B's layer 15 on Kinetics-400. Not in the paper:
# VideoMAE's recipe for that set (150 epochs), with the same neck.
_base_ = [
    '../_base_/video/videomae-s.py',
    '../_base_/video/k400.py',
    '../_base_/video/schedule_40e.py',
    '../_base_/video/runtime.py',
]

model = dict(
    backbone=dict(
        return_feat_map=True,
        init_cfg=dict(checkpoint='data/pretrained/videomae-s_k400-1600e.pth'),
    ),
    neck=dict(
        _delete_=True,
        type='LLMBlockNeck',
        out_type='avg_featmap',
        in_channels=384,
        block=dict(
            type='LLMBlock',
            checkpoint='data/llm/llama-7b',
            layers=(15,),
            dtype='float16',
        ),
        init_cfg=dict(type='lm4ve.TorchDefault', layer='Linear'),
    ),
    cls_head=dict(num_classes=400),
    data_preprocessor=dict(
        blending=dict(
            augments=[
                dict(type='lm4ve.ReversedMixup', alpha=0.8, num_classes=400),
                dict(type='lm4ve.ReversedCutmix', alpha=1.0, num_classes=400),
            ]
        )
    ),
)
param_scheduler = [
    _base_.param_scheduler[0],
    dict(_base_.param_scheduler[1], T_max=145, end=150),
]
train_cfg = dict(max_epochs=150)
