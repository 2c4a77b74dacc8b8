# Point-MAE with LLaMA-7B's last block, frozen, before the final norm, on PB_T50_RS.
_base_ = [
    './pointmae_scanobjectnn-hardest.py',
    '../_base_/llm/llama-7b.py',
    '../_base_/pointcloud/neck.py',
]

model = dict(
    backbone=dict(final_norm=False),
    neck=dict(**_base_.llm_neck, in_channels=384, block=_base_.llm_block),
)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=_base_.mapper_rates))
