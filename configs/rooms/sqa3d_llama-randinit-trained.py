# Control: the block from random initialization, trained (the paper's "random").
_base_ = './sqa3d_llama.py'

model = dict(neck=dict(block=dict(pretrained=False, trainable='all', dtype='float32')))
