# VectorNet with LLaMA-7B's last block, frozen, on agent and lane tokens.
_base_ = './vectornet_argoverse2.py'

model = dict(
    encoder=dict(final_norm=False),
    neck=dict(
        _delete_=True,
        type='LLMBlockNeck',
        in_channels=256,
        block=dict(
            type='LLMBlock',
            checkpoint='data/llm/llama-7b',
            layers=(-1,),
            dtype='float32',
        ),
        init_cfg=dict(type='lm4ve.TorchDefault', layer='Linear'),
    ),
)
