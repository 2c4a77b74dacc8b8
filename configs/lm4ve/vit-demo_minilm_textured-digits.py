# Digits on photographs: the small ViT with the last block of all-MiniLM-L6-v2.
_base_ = ['./vit-demo_none_textured-digits.py', '../_base_/llm/minilm.py']

model = dict(
    backbone=dict(out_type='raw', final_norm=False),
    neck=dict(
        _delete_=True,
        type='LLMBlockNeck',
        in_channels=64,
        out_type='cls_token',
        block={{_base_.llm_block}}))
