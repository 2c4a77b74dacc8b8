# ViT-S with LLaMA-7B's layer 15 of 0 to 31, frozen, before the final norm: the paper's
# model. That layer gave its published numbers; its text says the last one
# (--cfg-options model.neck.block.layers="(31,)").
_base_ = './videomae-s_ssv2.py'

model = dict(
    backbone=dict(return_feat_map=True),
    neck=dict(
        _delete_=True,
        type='LLMBlockNeck',
        out_type='avg_featmap',
        in_channels=384,
        block=dict(
            type='LLMBlock',
            checkpoint='data/llm/llama-7b',
            layers=(15,),
            dtype='float16',
        ),
        init_cfg=dict(type='lm4ve.TorchDefault', layer='Linear'),
    ),
)
