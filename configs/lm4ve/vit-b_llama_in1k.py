# ViT-B with LLaMA-7B's last block, frozen, before the final norm: the paper's model.
_base_ = ['./vit-b_in1k.py', '../_base_/llm/llama-7b.py']

model = dict(
    backbone=dict(out_type='raw', final_norm=False),
    neck=dict(
        _delete_=True,
        type='LLMBlockNeck',
        in_channels=768,
        out_type='cls_token',
        block={{_base_.llm_block}}))
