# LUViT's block (arXiv 2507.00754): frozen, with LoRA, after the last layer of a ViT-B.
_base_ = '../llm/llama-7b.py'

luvit = dict(
    type='LLMBlockInsert',
    after='layers.11',
    neck=dict(
        type='LLMBlockNeck',
        in_channels=768,
        block=dict(trainable='lora', lora=dict(r=16), **_base_.llm_block),
    ),
)
