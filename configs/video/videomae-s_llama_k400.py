# VideoMAE ViT-S with LLaMA-7B's layer 15 on Kinetics-400. Not in the paper:
# VideoMAE's recipe for that set (150 epochs), with the same neck.
_base_ = [
    '../_base_/video/videomae-s.py',
    '../_base_/video/k400.py',
    '../_base_/video/schedule_40e.py',
    '../_base_/video/runtime.py',
    '../_base_/llm/llama-7b_layer15.py',
    '../_base_/necks/avg_featmap.py',
    '../_base_/necks/mapper_init.py',
]

model = dict(
    backbone=dict(
        return_feat_map=True,
        init_cfg=dict(checkpoint='data/pretrained/videomae-s_k400-1600e.pth'),
    ),
    neck=dict(
        **_base_.llm_neck,
        in_channels=384,
        block=_base_.llm_block,
        init_cfg=_base_.mapper_init,
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
