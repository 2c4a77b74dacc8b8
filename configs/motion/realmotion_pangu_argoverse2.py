# PanguMotion: openPangu-Embedded-1B's last block, frozen, on the tokens of each sub-scene.
# Released in bfloat16; PanguMotion computes it in float32, without AMP. Its folder has
# config.json and model.safetensors (docs/guides/motion_forecasting.md).
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
            checkpoint='data/llm/openpangu-embedded-1b',
            layers=(-1,),
            dtype='float32',
        ),
    )
)
