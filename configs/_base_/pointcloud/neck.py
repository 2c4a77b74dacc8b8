# The neck of Point-BERT, which has norms of another eps, and the learning rate of its
# mappers: 2.5e-4, without weight decay, as released. (The paper's text says 5e-5,
# which is lr_mult=.1.) The class token comes first.
_base_ = ['../necks/raw.py', '../necks/mapper_init.py']

llm_neck = dict(
    norm_cfg=dict(type='LN', eps=1e-5),
    num_extra_tokens=1,
    init_cfg=_base_.mapper_init,
)
mapper_rates = dict(
    mapper_in=dict(lr_mult=0.5, decay_mult=0.0),
    mapper_out=dict(lr_mult=0.5, decay_mult=0.0),
)
