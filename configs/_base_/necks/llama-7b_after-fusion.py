# LLaMA-7B's last block, after the fusion: on METER's visual tokens, on SQA3D's objects.
# A config writes
#   model = _base_.with_block
# Layers of the fusion end with a norm, and the paper names none after its second
# mapper: no norm.
_base_ = ['../llm/llama-7b_float32.py', './raw.py', './mapper_init.py']

with_block = dict(
    neck=dict(
        **_base_.llm_neck,
        in_channels=768,
        norm_cfg=None,
        block=_base_.llm_block,
        init_cfg=_base_.mapper_init,
    )
)
