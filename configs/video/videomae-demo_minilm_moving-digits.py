# The embedded default of action recognition: the small ViT with the last block of
# all-MiniLM-L6-v2.
_base_ = [
    './videomae-demo_none_moving-digits.py',
    '../_base_/llm/minilm.py',
    '../_base_/necks/avg_featmap.py',
]

model = dict(
    backbone=dict(return_feat_map=True),
    neck=dict(**_base_.llm_neck, in_channels=64, block=_base_.llm_block),
)
