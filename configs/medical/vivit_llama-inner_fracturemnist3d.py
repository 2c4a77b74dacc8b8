# ViViT with LLaMA-7B's last block after its second encoder, residual within the
# mappers.
_base_ = [
    './vivit_none_fracturemnist3d.py',
    '../_base_/llm/llama-7b_float32.py',
    '../_base_/necks/mapper_init.py',
]

model = dict(
    backbone=dict(out_type='raw'),
    neck=dict(
        _delete_=True,
        type='LLMBlockNeck',
        in_channels=1024,
        out_type='cls_token',
        norm_cfg=None,
        residual='inner',
        block=_base_.llm_block,
        init_cfg=_base_.mapper_init,
    ),
)
