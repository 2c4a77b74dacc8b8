# The embedded set of shapes: a small Point-BERT with all-MiniLM-L6-v2's last block.
_base_ = [
    './pointbert-demo_none_primitives.py',
    '../_base_/llm/minilm.py',
    '../_base_/pointcloud/neck.py',
]

model = dict(
    backbone=dict(final_norm=False),
    neck=dict(**_base_.llm_neck, in_channels=64, block=_base_.llm_block),
)
