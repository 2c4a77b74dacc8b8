# VectorNet with LLaMA-7B's last block, frozen, on agent and lane tokens.
_base_ = [
    './vectornet_argoverse2.py',
    '../_base_/llm/llama-7b_float32.py',
    '../_base_/necks/raw.py',
    '../_base_/necks/mapper_init.py',
]

model = dict(
    encoder=dict(final_norm=False),
    neck=dict(
        **_base_.llm_neck,
        in_channels=256,
        block=_base_.llm_block,
        init_cfg=_base_.mapper_init,
    ),
)
