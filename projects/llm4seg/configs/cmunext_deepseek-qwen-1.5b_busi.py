# LLM4Seg with the last layer of DeepSeek-R1-Distill-Qwen-1.5B: 28 layers, D = 1536, 2
# KV heads. LLM4Seg's paper names this layer; its code takes layer 14 whatever its --layer
# says (CMUNeXt.py:172).
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
