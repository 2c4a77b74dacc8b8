# SQA3D with LLaMA-7B's last block, frozen, on the objects after the fusion.
# Its layers end with a norm, and the paper names none after its second mapper: no norm.
_base_ = './sqa3d.py'

model = dict(
    neck=dict(
        _delete_=True,
        type='LLMBlockNeck',
        in_channels=768,
        norm_cfg=None,
        block=dict(
            type='LLMBlock',
            checkpoint='data/llm/llama-7b',
            layers=(-1,),
            dtype='float32',
        ),
        init_cfg=dict(type='lm4ve.TorchDefault', layer='Linear'),
    )
)
