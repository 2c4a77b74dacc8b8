# ViT-S with LLaMA-7B's last block, frozen, before the final norm: the paper's model.
_base_ = './vit-s_in1k.py'

model = dict(
    backbone=dict(out_type='raw', final_norm=False),
    neck=dict(
        _delete_=True,
        type='LLMBlockNeck',
        out_type='cls_token',
        in_channels=384,
        block=dict(
            type='LLMBlock',
            checkpoint='data/llm/llama-7b',
            layers=(-1,),
            dtype='float16',
        ),
    ),
)
