# Control: the block from random initialization, trained (the paper's "random").
_base_ = './vectornet_llama_argoverse1.py'

model = dict(neck=dict(block=dict(pretrained=False, trainable='all', dtype='float32')))
