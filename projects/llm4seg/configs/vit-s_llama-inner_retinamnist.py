# ViT-S with LLaMA-7B's last block and the residual within the mappers, the best of
# LLMBoostMedical. Its other variants: --cfg-options model.neck.residual=none, outer or
# both.
_base_ = './vit-s_none_retinamnist.py'

model = dict(
    backbone=dict(out_type='raw', final_norm=False),
    neck=dict(
        _delete_=True,
        type='LLMBlockNeck',
        out_type='cls_token',
        in_channels=384,
        residual='inner',
        block=dict(
            type='LLMBlock',
            checkpoint='data/llm/llama-7b',
            layers=(-1,),
            dtype='float16',
        ),
    ),
)
