# Point-BERT with LLaMA-7B's last block, frozen, before the final norm. The release has
# norms of another eps here, and mappers as torch makes them. The class token comes first.
_base_ = './pointbert.py'

model = dict(
    backbone=dict(final_norm=False),
    neck=dict(
        _delete_=True,
        type='LLMBlockNeck',
        in_channels=384,
        norm_cfg=dict(type='LN', eps=1e-5),
        num_extra_tokens=1,
        init_cfg=dict(type='lm4ve.TorchDefault', layer='Linear'),
        block=dict(
            type='LLMBlock',
            checkpoint='data/llm/llama-7b',
            layers=(-1,),
            dtype='float32',
        ),
    ),
)
