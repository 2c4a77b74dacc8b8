# LLM4Seg with the last layer of DeepSeek-R1-Distill-Qwen-1.5B.
_base_ = ['./cmunext_none_busi.py', '../_base_/llm/deepseek-qwen-1.5b.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='LLMBlockInsert',
        after='encoder5',
        backbone=_base_.model.backbone,
        neck=dict(
            type='LLMBlockNeck',
            in_channels=256,
            mapper=dict(bias=True),
            block=dict(_base_.llm_block, layers=(27,), final_norm=False, dtype='float32'),
        ),
    )
)
