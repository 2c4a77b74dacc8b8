# ViT-S with the last block of OPT 350M, frozen.
_base_ = ['./videomae-s_ssv2.py', '../_base_/llm/opt-350m.py']

model = dict(
    backbone=dict(return_feat_map=True),
    neck=dict(
        _delete_=True,
        type='LLMBlockNeck',
        in_channels=384,
        out_type='avg_featmap',
        block={{_base_.llm_block}}))
# As for images, where the paper saw NaN at the full rate.
optim_wrapper = dict(optimizer=dict(lr=2e-4))
