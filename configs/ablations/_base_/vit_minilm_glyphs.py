# The ViT of the letters with a block, for tools/analysis/probe.py.
_base_ = [
    './vit_glyphs.py',
    '../../_base_/llm/minilm.py',
    '../../_base_/necks/cls_token.py',
]

model = dict(
    backbone=dict(out_type='raw', final_norm=False),
    neck=dict(**_base_.llm_neck, in_channels=64, block=_base_.llm_block),
)
