# LLaMA-7B's last block on METER's visual tokens, after the fusion. A config writes
#   model = _base_.with_block
# METER's layers end with a norm, and the paper names none after its second mapper: no norm.
_base_ = ['../llm/llama-7b.py', '../necks/raw.py']

with_block = dict(
    neck=dict(**_base_.llm_neck, in_channels=768, norm_cfg=None, block=_base_.llm_block)
)
