# The block after the sixth of the encoder's twelve blocks.
_base_ = './vit-s_in1k.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='LLMBlockInsert',
        after='layers.5',
        backbone=dict(
            type='lm4ve.ReleasedViT',
            arch='deit-small',
            img_size=224,
            patch_size=16,
            drop_path_rate=0.1,
        ),
        neck=dict(
            type='LLMBlockNeck',
            in_channels=384,
            block=dict(
                type='LLMBlock',
                checkpoint='data/llm/llama-7b',
                layers=(-1,),
                dtype='float16',
            ),
        ),
    )
)
