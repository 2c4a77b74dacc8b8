# Control: the same block from random initialization, frozen. The paper lacks it.
_base_ = './vit-s_llama_in1k.py'

model = dict(neck=dict(block=dict(pretrained=False)))
