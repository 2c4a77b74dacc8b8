# The embedded default: the small ViT with the last block of all-MiniLM-L6-v2.
_base_ = './vit-demo_none_digits.py'

model = dict(
    backbone=dict(out_type='raw', final_norm=False),
    neck=dict(
        _delete_=True,
        type='LLMBlockNeck',
        out_type='cls_token',
        in_channels=64,
        block=dict(
            type='LLMBlock', checkpoint='package:all-MiniLM-L6-v2', layers=(-1,)
        ),
    ),
)
