# Control: the same block from random initialisation, frozen. The paper lacks it.
_base_ = './vectornet_llama_argoverse1.py'

model = dict(neck=dict(block=dict(pretrained=False)))
