# PanguMotion: LLaMA-7B's last block, frozen, on the tokens of each sub-scene.
_base_ = [
    './realmotion_argoverse2.py',
    '../_base_/llm/llama-7b_float32.py',
    '../_base_/necks/raw.py',
    '../_base_/necks/mapper_init.py',
]

# The encoder keeps its norm: PanguMotion has one before and one after the block.
model = dict(
    neck=dict(
        **_base_.llm_neck,
        in_channels=128,
        norm_cfg=dict(type='LN', eps=1e-5),
        init_cfg=_base_.mapper_init,
        block=_base_.llm_block,
    )
)
