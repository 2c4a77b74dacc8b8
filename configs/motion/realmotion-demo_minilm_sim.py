# The small RealMotion with all-MiniLM-L6-v2's last block, as PanguMotion has it.
_base_ = [
    './realmotion-demo_none_sim.py',
    '../_base_/llm/minilm.py',
    '../_base_/necks/raw.py',
    '../_base_/necks/mapper_init.py',
]

# The encoder keeps its norm: PanguMotion has one before and one after the block.
model = dict(
    neck=dict(
        **_base_.llm_neck,
        in_channels=32,
        norm_cfg=dict(type='LN', eps=1e-5),
        init_cfg=_base_.mapper_init,
        block=_base_.llm_block,
    )
)
