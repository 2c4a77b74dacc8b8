# Only the block's norms train (Frozen Pretrained Transformer, Lu et al. 2021).
_base_ = './vit-s_llama_in1k.py'

model = dict(neck=dict(block=dict(trainable='norms', dtype='float32')))
