# The embedded default: the small VectorNet with all-MiniLM-L6-v2's last block.
_base_ = './vectornet-demo_none_sim.py'

model = dict(
    encoder=dict(final_norm=False),
    neck=dict(
        _delete_=True,
        type='LLMBlockNeck',
        in_channels=64,
        block=dict(
            type='LLMBlock', checkpoint='package:all-MiniLM-L6-v2', layers=(-1,)
        ),
    ),
)
