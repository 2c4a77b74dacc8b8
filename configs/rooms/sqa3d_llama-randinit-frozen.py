# Control: the block from random initialization, frozen. The paper lacks it.
_base_ = './sqa3d_llama.py'

model = dict(neck=dict(block=dict(pretrained=False)))
