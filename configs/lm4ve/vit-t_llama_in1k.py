# ViT-T with LLaMA-7B's last block, frozen, before the final norm: the paper's model.
_base_ = './vit-s_llama_in1k.py'

model = dict(
    backbone=dict(arch='deit-tiny'),
    neck=dict(in_channels=192),
    head=dict(in_channels=192),
)
