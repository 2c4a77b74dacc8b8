# The small RealMotion with all-MiniLM-L6-v2's last block, as PanguMotion has it.
_base_ = './realmotion-demo_none_sim.py'

# The encoder keeps its norm: PanguMotion has one before and one after the block.
model = dict(
    neck=dict(
        _delete_=True,
        type='LLMBlockNeck',
        in_channels=32,
        norm_cfg=dict(type='LN', eps=1e-5),
        init_cfg=dict(type='lm4ve.TorchDefault', layer='Linear'),
        block=dict(
            type='LLMBlock', checkpoint='package:all-MiniLM-L6-v2', layers=(-1,)
        ),
    )
)
