# The same with all-MiniLM-L6-v2's last block in the bottleneck, on 4 x 4 tokens.
_base_ = './cmunext-demo_none_ultrasound.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='LLMBlockInsert',
        after='encoder5',
        backbone=_base_.model.backbone,
        neck=dict(
            type='LLMBlockNeck',
            in_channels=128,
            block=dict(
                type='LLMBlock', checkpoint='package:all-MiniLM-L6-v2', layers=(-1,)
            ),
        ),
    )
)
