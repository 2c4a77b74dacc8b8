# Point-BERT with LLaMA-7B's last block on ModelNet40, 4096 points.
_base_ = ['./pointbert_modelnet40-4k.py', '../_base_/llm/llama-7b.py']

model = dict(
    backbone=dict(final_norm=False),
    neck=dict(
        _delete_=True,
        type='LLMBlockNeck',
        in_channels=384,
        norm_cfg=dict(type='LN', eps=1e-5),
        block={{_base_.llm_block}}))
# The mappers' own learning rate: 2.5e-4, without weight decay, as released. (The
# paper's text says 5e-5: lr_mult=.1.)
optim_wrapper = dict(
    paramwise_cfg=dict(
        custom_keys={
            'mapper_in': dict(lr_mult=.5, decay_mult=0.),
            'mapper_out': dict(lr_mult=.5, decay_mult=0.)
        }))
