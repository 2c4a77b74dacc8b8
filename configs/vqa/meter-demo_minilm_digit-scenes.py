# The embedded scenes of digits: all-MiniLM-L6-v2's last block, frozen, on the visual
# tokens. The fusion ends with a norm, so that the neck has none.
_base_ = [
    './meter-demo_none_digit-scenes.py',
    '../_base_/llm/minilm.py',
    '../_base_/necks/raw.py',
]

model = dict(
    neck=dict(**_base_.llm_neck, in_channels=64, norm_cfg=None, block=_base_.llm_block)
)
