# LLM4Seg (arXiv 2506.18034): layer 14 of Llama 3.2 1B in the bottleneck of CMUNeXt.
# It does not follow the released code: tokens see all others and have no positions, as in
# the paper that began it, pixels are normalized once, and the last epoch counts. What the
# code does is in cmunext_llama-3.2-1b-released_busi.py.
_base_ = './cmunext_none_busi.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='LLMBlockInsert',
        after='encoder5',
        backbone=_base_.model.backbone,
        neck=dict(
            type='LLMBlockNeck',
            in_channels=256,
            layout='BCHW',
            mapper=dict(bias=True),
            init_cfg=dict(type='lm4ve.TorchDefault', layer='Linear'),
            block=dict(
                type='LLMBlock',
                checkpoint='data/llm/llama-3.2-1b',
                layers=(14,),
                final_norm=False,
                dtype='float32',
            ),
        ),
    )
)
