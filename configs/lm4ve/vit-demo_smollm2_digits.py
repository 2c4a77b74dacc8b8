# A real decoder: the small ViT with the last block of SmolLM2-135M. `make demo-llm`
# runs it.
_base_ = [
    './vit-demo_none_digits.py',
    '../_base_/llm/smollm2.py',
    '../_base_/necks/cls_token.py',
]

model = dict(
    backbone=dict(out_type='raw', final_norm=False),
    neck=dict(**_base_.llm_neck, in_channels=64, block=_base_.llm_block),
)
