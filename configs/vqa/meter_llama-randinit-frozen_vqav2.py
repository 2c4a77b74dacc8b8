# Control: the block from random initialization, frozen. The paper lacks it.
_base_ = './meter_llama_vqav2.py'

model = dict(neck=dict(block=dict(pretrained=False)))
