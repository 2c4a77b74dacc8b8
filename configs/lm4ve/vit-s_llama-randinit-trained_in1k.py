# Control: the block from random initialization, trained (the paper's "random").
_base_ = './vit-s_llama_in1k.py'

model = dict(neck=dict(block=dict(pretrained=False, trainable='all', dtype='float32')))
