# ViT-S with LLaMA-7B's last block and the residual within the mappers, the best of
# LLMBoostMedical. Its other variants: --cfg-options model.neck.residual=none, outer or
# both.
_base_ = [
    './vit-s_none_retinamnist.py',
    '../_base_/llm/llama-7b.py',
    '../_base_/necks/cls_token.py',
]

model = dict(
    backbone=dict(out_type='raw', final_norm=False),
    neck=dict(
        **_base_.llm_neck, in_channels=384, residual='inner', block=_base_.llm_block
    ),
)
