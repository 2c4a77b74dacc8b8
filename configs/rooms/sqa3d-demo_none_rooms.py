# The embedded rooms: a small SQA3D without a block answers somebody who stands in them.
_base_ = [
    '../_base_/rooms/sqa3d-demo.py',
    '../_base_/rooms/rooms.py',
    '../_base_/rooms/cosine_2e.py',
    '../_base_/default_runtime.py',
]
