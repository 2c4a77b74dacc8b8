# Control: the same block from random initialization, frozen.
_base_ = './vit-demo_minilm_textured-digits.py'

model = dict(neck=dict(block=dict(pretrained=False)))
