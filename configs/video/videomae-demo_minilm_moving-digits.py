# The embedded default of action recognition: the small ViT with the last block of
# all-MiniLM-L6-v2.
_base_ = [
    './videomae-demo_none_moving-digits.py', '../_base_/llm/minilm.py'
]

model = dict(
    backbone=dict(return_feat_map=True),
    neck=dict(
        _delete_=True,
        type='LLMBlockNeck',
        in_channels=64,
        out_type='avg_featmap',
        block={{_base_.llm_block}}))
