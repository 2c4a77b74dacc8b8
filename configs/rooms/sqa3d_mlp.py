# Control: GELU and LayerNorm in the block's place (the paper's "MLP").
_base_ = './sqa3d_llama.py'

model = dict(neck=dict(block=dict(_delete_=True, type='MLPBlock', embed_dims=4096)))
