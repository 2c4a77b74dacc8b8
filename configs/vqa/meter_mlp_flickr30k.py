# Control: GELU and LayerNorm in the block's place (the paper's "MLP").
_base_ = './meter_llama_flickr30k.py'

model = dict(neck=dict(block=dict(_delete_=True, type='MLPBlock', embed_dims=4096)))
