# Control: GELU and LayerNorm in the block's place, same width.
_base_ = './sqa3d-demo_minilm_rooms.py'

model = dict(neck=dict(block=dict(_delete_=True, type='MLPBlock', embed_dims=384)))
