# The embedded rooms: all-MiniLM-L6-v2's last block, frozen, on the objects after the
# fusion, which ends with a norm, so that the neck has none. The objects go past the
# block too (`residual`), as in the paper they do not: through it alone, a training of
# this length did not begin to learn.
_base_ = [
    './sqa3d-demo_none_rooms.py',
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
