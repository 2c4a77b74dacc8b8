# Control: the same block from random initialization, frozen. The paper lacks it.
_base_ = './videomae-s_llama_ssv2.py'

model = dict(neck=dict(block=dict(pretrained=False)))
