# ViT-S with the last block of OPT 125M, frozen.
_base_ = ['./videomae-s_ssv2.py', '../_base_/llm/opt-125m.py']

model = dict(
    backbone=dict(return_feat_map=True),
    neck=dict(
        _delete_=True,
        type='LLMBlockNeck',
        in_channels=384,
        out_type='avg_featmap',
        block={{_base_.llm_block}}))
