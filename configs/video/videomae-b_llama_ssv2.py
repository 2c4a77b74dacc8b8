# ViT-B with LLaMA-7B's layer 15, frozen, before the final norm: the paper's model (of the
# layer: videomae-s_llama_ssv2.py).
_base_ = './videomae-b_ssv2.py'

model = dict(
    backbone=dict(return_feat_map=True),
    neck=dict(
        _delete_=True,
        type='LLMBlockNeck',
        out_type='avg_featmap',
        in_channels=768,
        block=dict(
            type='LLMBlock',
            checkpoint='data/llm/llama-7b',
            layers=(15,),
            dtype='float16',
        ),
        init_cfg=dict(type='lm4ve.TorchDefault', layer='Linear'),
    ),
)
