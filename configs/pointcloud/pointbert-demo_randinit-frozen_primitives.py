# Control: the same block from random initialization, frozen.
_base_ = './pointbert-demo_minilm_primitives.py'

model = dict(neck=dict(block=dict(pretrained=False)))
