# The embedded rooms with stored objects: all-MiniLM-L6-v2's last block, frozen, on them
# and beside them (`residual`), as in sqa3d-demo_minilm_rooms.py.
_base_ = [
    './sqa3d-demo_none_rooms-objects.py',
    '../_base_/llm/minilm.py',
    '../_base_/necks/raw.py',
]

model = dict(
    neck=dict(
        **_base_.llm_neck,
        in_channels=64,
        norm_cfg=None,
        residual='outer',
        block=_base_.llm_block,
    )
)
