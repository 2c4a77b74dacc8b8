# LLM4Seg as its released code computes it: the layer is causal, since no mask is given,
# and all channels turn by one radian a token, with cosine and sine swapped; normalized
# pixels are divided by 255 once more; the epoch with the best validation IoU is kept.
_base_ = './cmunext_llama-3.2-1b_busi.py'

model = dict(
    backbone=dict(
        backbone=dict(input_scale=1 / 255),
        neck=dict(block=dict(causal=True, rotary='llm4seg')),
    )
)
train_cfg = dict(val_interval=1)
default_hooks = dict(checkpoint=dict(save_best='lesion/IoU', rule='greater'))
