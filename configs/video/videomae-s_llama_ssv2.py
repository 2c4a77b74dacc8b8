# ViT-S with LLaMA-7B's layer 15, frozen, before the final norm: the paper's model.
_base_ = ['./videomae-s_ssv2.py', '../_base_/llm/llama-7b_layer15.py']

model = dict(
    backbone=dict(return_feat_map=True),
    neck=dict(
        _delete_=True,
        type='LLMBlockNeck',
        in_channels=384,
        out_type='avg_featmap',
        block={{_base_.llm_block}}))
