# The embedded rooms with stored objects: all-MiniLM-L6-v2's last block, frozen, on them
# and beside them (`residual`), as in sqa3d-demo_minilm_rooms.py.
_base_ = './sqa3d-demo_none_rooms-objects.py'

model = dict(
    neck=dict(
        _delete_=True,
        type='LLMBlockNeck',
        in_channels=64,
        norm_cfg=None,
        residual='outer',
        block=dict(
            type='LLMBlock', checkpoint='package:all-MiniLM-L6-v2', layers=(-1,)
        ),
    )
)
