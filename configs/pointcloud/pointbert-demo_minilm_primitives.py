# The embedded set of shapes: a small Point-BERT with all-MiniLM-L6-v2's last block.
_base_ = ['./pointbert-demo_none_primitives.py', '../_base_/llm/minilm.py']

model = dict(
    backbone=dict(final_norm=False),
    neck=dict(
        _delete_=True,
        type='LLMBlockNeck',
        in_channels=64,
        norm_cfg=dict(type='LN', eps=1e-5),
        block={{_base_.llm_block}}))
