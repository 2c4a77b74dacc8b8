# Digits on photographs: the small ViT with the last block of all-MiniLM-L6-v2.
# From scratch this was at chance after 1,000 steps. It begins with the encoder of the
# model without a block, which is to be trained first, and goes on for 472 steps.
_base_ = './vit-demo_none_textured-digits.py'

load_from = 'work_dirs/vit-demo_none_textured-digits/epoch_3.pth'
model = dict(
    backbone=dict(out_type='raw', final_norm=False),
    neck=dict(
        _delete_=True,
        type='LLMBlockNeck',
        out_type='cls_token',
        in_channels=64,
        block=dict(
            type='LLMBlock', checkpoint='package:all-MiniLM-L6-v2', layers=(-1,)
        ),
    ),
)
train_dataloader = dict(dataset=dict(variants=12))
train_cfg = dict(max_epochs=1)
param_scheduler = dict(total_steps=1)
