# Control: the block from random initialization, frozen. The paper lacks it.
_base_ = './pointbert_llama_scanobjectnn-bg.py'

model = dict(neck=dict(block=dict(pretrained=False)))
