# Control: the same block from random initialization, frozen.
_base_ = './meter-demo_minilm_digit-scenes.py'

model = dict(neck=dict(block=dict(pretrained=False)))
