# The embedded questions: all-MiniLM-L6-v2's last block, frozen, on the visual tokens.
# The fusion ends with a norm, so that the neck has none.
_base_ = './meter-demo_none_easy-vqa.py'

model = dict(
    neck=dict(
        _delete_=True,
        type='LLMBlockNeck',
        in_channels=64,
        norm_cfg=None,
        block=dict(
            type='LLMBlock', checkpoint='package:all-MiniLM-L6-v2', layers=(-1,)
        ),
    )
)
