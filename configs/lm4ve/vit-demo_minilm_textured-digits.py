# Digits on photographs: the small ViT with the last block of all-MiniLM-L6-v2.
# From scratch this was at chance after 1,000 steps. It begins with the encoder of the
# model without a block, which is to be trained first, and goes on for 472 steps.
_base_ = [
    './vit-demo_none_textured-digits.py',
    '../_base_/llm/minilm.py',
    '../_base_/necks/cls_token.py',
]

load_from = 'work_dirs/vit-demo_none_textured-digits/epoch_3.pth'
model = dict(
    backbone=dict(out_type='raw', final_norm=False),
    neck=dict(**_base_.llm_neck, in_channels=64, block=_base_.llm_block),
)
train_dataloader = dict(dataset=dict(variants=12))
train_cfg = dict(max_epochs=1)
param_scheduler = dict(total_steps=1)
