# MedVisionLlama (arXiv 2410.02458): the last block of Llama 3.1 8B before the layers of
# the ViT, on the embedded patches, residual within the mappers. Loss, data and schedule
# are those of vit3d_none_brain-tumour.py, which do not follow the released code; what that
# does is in vit3d_llama-3.1-8b-released_brain-tumour.py.
_base_ = './vit3d_none_brain-tumour.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='LLMBlockInsert',
        after='embed',
        backbone=_base_.model.backbone,
        neck=dict(
            type='LLMBlockNeck',
            in_channels=64,
            layout='BNC',
            residual='inner',
            # Rank 4 beside random mappers that stay as they are, as in the released
            # code.
            mapper=dict(bias=True),
            lora=dict(r=4, alpha=1, bias='lora_only'),
            init_cfg=dict(type='lm4ve.TorchDefault', layer='Linear'),
            block=dict(
                type='LLMBlock',
                checkpoint='data/llm/llama-3.1-8b',
                layers=(-1,),
                dtype='float32',
            ),
        ),
    )
)
