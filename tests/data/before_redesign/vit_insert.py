# The block inside the encoder, behind its only layer.
_base_ = './vit.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='LLMBlockInsert',
        after='layers.0',
        backbone=dict(
            type='mmpretrain.VisionTransformer',
            arch=dict(
                embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=24
            ),
            img_size=8,
            patch_size=2,
        ),
        neck=dict(
            type='LLMBlockNeck',
            in_channels=16,
            norm_cfg=None,
            residual='outer',
            low_rank='fold',
            block=dict(
                type='LLMBlock',
                checkpoint='tests/data/before_redesign/llm/tiny-llama',
                layers=(0,),
                dtype='bfloat16',
            ),
        ),
    ),
    neck=None,
)
