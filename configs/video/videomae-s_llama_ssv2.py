# ViT-S with LLaMA-7B's layer 15, frozen, before the final norm: the paper's model.
_base_ = [
    './videomae-s_ssv2.py',
    '../_base_/llm/llama-7b_layer15.py',
    '../_base_/necks/avg_featmap.py',
    '../_base_/necks/mapper_init.py',
]

model = dict(
    backbone=dict(return_feat_map=True),
    neck=dict(
        **_base_.llm_neck,
        in_channels=384,
        block=_base_.llm_block,
        init_cfg=_base_.mapper_init,
    ),
)
