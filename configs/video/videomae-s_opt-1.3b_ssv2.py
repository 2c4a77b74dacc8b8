# ViT-S with the last block of OPT 1.3B, frozen.
_base_ = ['./videomae-s_ssv2.py', '../_base_/llm/opt-1.3b.py']

model = dict(
    backbone=dict(return_feat_map=True),
    neck=dict(
        _delete_=True,
        type='LLMBlockNeck',
        in_channels=384,
        out_type='avg_featmap',
        block={{_base_.llm_block}}))
