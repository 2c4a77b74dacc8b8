# The block before the encoder's first block.
_base_ = './vit-s_llama-middle_in1k.py'

model = dict(backbone=dict(after='drop_after_pos'))
