# ViT-S with the last block of OPT 2.7B, frozen.
_base_ = ['./vit-s_in1k.py', '../_base_/llm/opt-2.7b.py']

model = dict(
    backbone=dict(out_type='raw', final_norm=False),
    neck=dict(
        _delete_=True,
        type='LLMBlockNeck',
        in_channels=384,
        out_type='cls_token',
        block={{_base_.llm_block}}))
