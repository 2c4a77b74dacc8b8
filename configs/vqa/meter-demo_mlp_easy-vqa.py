# Control: GELU and LayerNorm in the block's place, same width.
_base_ = './meter-demo_minilm_easy-vqa.py'

model = dict(neck=dict(block=dict(_delete_=True, type='MLPBlock', embed_dims=384)))
