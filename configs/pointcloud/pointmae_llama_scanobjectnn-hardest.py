# Point-MAE with LLaMA-7B's last block, frozen, before the final norm, on PB_T50_RS.
_base_ = './pointmae_scanobjectnn-hardest.py'

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
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys=dict(
            mapper_in=dict(lr_mult=0.5, decay_mult=0.0),
            mapper_out=dict(lr_mult=0.5, decay_mult=0.0),
        )
    )
)
