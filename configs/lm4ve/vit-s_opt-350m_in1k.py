# ViT-S with the last block of OPT 350M, frozen.
_base_ = ['./vit-s_in1k.py', '../_base_/llm/opt-350m.py']

model = dict(
    backbone=dict(out_type='raw', final_norm=False),
    neck=dict(
        _delete_=True,
        type='LLMBlockNeck',
        in_channels=384,
        out_type='cls_token',
        block={{_base_.llm_block}}))
# At DeiT's rate the paper saw NaN; it cut the rate to a fifth.
optim_wrapper = dict(optimizer=dict(lr=2e-4))
