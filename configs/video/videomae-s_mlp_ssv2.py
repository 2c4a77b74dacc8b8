# Control: GELU and LayerNorm in the block's place, same width (the paper's MLP).
_base_ = './videomae-s_llama_ssv2.py'

model = dict(neck=dict(block=dict(_delete_=True, type='MLPBlock', embed_dims=4096)))
