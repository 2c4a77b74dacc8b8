# PanguMotion: LLaMA-7B's last block, frozen, on the tokens of each sub-scene.
_base_ = './realmotion_argoverse2.py'

# The encoder keeps its norm: PanguMotion has one before and one after the block.
model = dict(
    neck=dict(
        _delete_=True,
        type='LLMBlockNeck',
        in_channels=128,
        norm_cfg=dict(type='LN', eps=1e-5),
        init_cfg=dict(type='lm4ve.TorchDefault', layer='Linear'),
        block=dict(
            type='LLMBlock',
            checkpoint='data/llm/llama-7b',
            layers=(-1,),
            dtype='float32',
        ),
    )
)
