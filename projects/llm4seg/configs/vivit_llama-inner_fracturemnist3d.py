# ViViT with LLaMA-7B's last block after its second encoder, residual within the
# mappers.
_base_ = './vivit_none_fracturemnist3d.py'

model = dict(
    backbone=dict(out_type='raw'),
    neck=dict(
        _delete_=True,
        type='LLMBlockNeck',
        in_channels=1024,
        out_type='cls_token',
        norm_cfg=None,
        residual='inner',
        block=dict(
            type='LLMBlock',
            checkpoint='data/llm/llama-7b',
            layers=(-1,),
            dtype='float32',
        ),
        init_cfg=dict(type='lm4ve.TorchDefault', layer='Linear'),
    ),
)
