# Pictures of your own, in minutes on a CPU: EfficientNet-Lite0 as in the config without a
# block, with the last block of all-MiniLM-L6-v2 behind it.
_base_ = './efficientnet-lite0_none_folder.py'

model = dict(
    neck=dict(
        _delete_=True,
        type='LLMBlockNeck',
        out_type='avg_featmap',
        in_channels=1280,
        block=dict(
            type='LLMBlock', checkpoint='package:all-MiniLM-L6-v2', layers=(-1,)
        ),
    ),
)
