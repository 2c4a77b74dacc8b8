# Control: the block from random initialization, trained (the paper's "random").
_base_ = './videomae-s_llama_ssv2.py'

model = dict(neck=dict(block=dict(pretrained=False, trainable='all', dtype='float32')))
