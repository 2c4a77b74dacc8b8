# Point-BERT's fine-tuning with a block: the mappers learn at 2.5e-4, without weight decay,
# as released. (The paper's text says 5e-5, which is lr_mult=.1.)
_base_ = './schedule_300e.py'

optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys=dict(
            mapper_in=dict(lr_mult=0.5, decay_mult=0.0),
            mapper_out=dict(lr_mult=0.5, decay_mult=0.0),
        )
    )
)
