# ViT-S with LLaMA-7B's last block, frozen, before the final norm: the paper's model.
_base_ = [
    './vit-s_in1k.py',
    '../_base_/llm/llama-7b.py',
    '../_base_/necks/cls_token.py',
]

model = dict(
    backbone=dict(out_type='raw', final_norm=False),
    neck=dict(**_base_.llm_neck, in_channels=384, block=_base_.llm_block),
)
