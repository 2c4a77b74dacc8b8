# LLM4Seg as its released code computes it: the layer is causal, since no mask is given,
# and all channels turn by one radian a token, with cosine and sine swapped.
_base_ = './cmunext_llama-3.2-1b_busi.py'

model = dict(backbone=dict(neck=dict(block=dict(causal=True, rotary='llm4seg'))))
