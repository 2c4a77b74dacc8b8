# The embedded default of action recognition: the small ViT with the last block of
# all-MiniLM-L6-v2.
_base_ = './videomae-demo_none_moving-digits.py'

model = dict(
    backbone=dict(return_feat_map=True),
    neck=dict(
        _delete_=True,
        type='LLMBlockNeck',
        out_type='avg_featmap',
        in_channels=64,
        block=dict(
            type='LLMBlock', checkpoint='package:all-MiniLM-L6-v2', layers=(-1,)
        ),
    ),
)
