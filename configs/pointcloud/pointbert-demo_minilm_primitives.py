# The embedded set of shapes: a small Point-BERT with all-MiniLM-L6-v2's last block.
_base_ = './pointbert-demo_none_primitives.py'

model = dict(
    backbone=dict(final_norm=False),
    neck=dict(
        _delete_=True,
        type='LLMBlockNeck',
        norm_cfg=dict(type='LN', eps=1e-5),
        num_extra_tokens=1,
        init_cfg=dict(type='lm4ve.TorchDefault', layer='Linear'),
        in_channels=64,
        block=dict(
            type='LLMBlock', checkpoint='package:all-MiniLM-L6-v2', layers=(-1,)
        ),
    ),
)
