# The embedded default: the small VectorNet with all-MiniLM-L6-v2's last block.
_base_ = [
    './vectornet-demo_none_sim.py',
    '../_base_/llm/minilm.py',
    '../_base_/necks/raw.py',
]

model = dict(
    encoder=dict(final_norm=False),
    neck=dict(**_base_.llm_neck, in_channels=64, block=_base_.llm_block),
)
