# The embedded rooms: all-MiniLM-L6-v2's last block, frozen, on the objects after the
# fusion, which ends with a norm, so that the neck has none. The objects go past the
# block too (`residual`), as in the paper they do not: through it alone, a training of
# this length did not begin to learn.
_base_ = './sqa3d-demo_none_rooms.py'

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
