# LLaMA-7B's last block in the 384-wide Point-BERT or Point-MAE. A config writes
#   model = _base_.with_block
#   optim_wrapper = dict(paramwise_cfg=dict(custom_keys=_base_.mapper_rates))
_base_ = ['../llm/llama-7b_float32.py', './neck.py']

with_block = dict(
    backbone=dict(final_norm=False),
    neck=dict(**_base_.llm_neck, in_channels=384, block=_base_.llm_block),
)
