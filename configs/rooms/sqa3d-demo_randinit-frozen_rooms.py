# Control: the same block from random initialization, frozen.
_base_ = './sqa3d-demo_minilm_rooms.py'

model = dict(neck=dict(block=dict(pretrained=False)))
