# A real decoder: the small ViT with the last block of SmolLM2-135M. `make demo-llm`
# runs it.
_base_ = './vit-demo_none_digits.py'

model = dict(
    backbone=dict(out_type='raw', final_norm=False),
    neck=dict(
        _delete_=True,
        type='LLMBlockNeck',
        out_type='cls_token',
        in_channels=64,
        block=dict(type='LLMBlock', checkpoint='package:SmolLM2-135M', layers=(-1,)),
    ),
)
