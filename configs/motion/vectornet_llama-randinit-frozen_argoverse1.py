# Control: the same block from random initialization, frozen. The paper lacks it.
_base_ = './vectornet_llama_argoverse1.py'

model = dict(neck=dict(block=dict(pretrained=False)))
