# The last two blocks.
_base_ = './vit-s_llama_in1k.py'

model = dict(neck=dict(block=dict(layers=(-2, -1))))
