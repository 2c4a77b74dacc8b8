# The control without a language model: GELU and LayerNorm.
_base_ = './vit_frozen.py'

model = dict(neck=dict(block=dict(_delete_=True, type='MLPBlock', embed_dims=24)))
