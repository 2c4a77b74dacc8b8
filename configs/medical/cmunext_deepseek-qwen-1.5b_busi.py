# LLM4Seg with the last layer of DeepSeek-R1-Distill-Qwen-1.5B: 28 layers, D = 1536, 2
# KV heads.
_base_ = './cmunext_llama-3.2-1b_busi.py'

model = dict(
    backbone=dict(
        neck=dict(
            block=dict(
                checkpoint='data/llm/deepseek-r1-distill-qwen-1.5b', layers=(27,)
            )
        )
    )
)
