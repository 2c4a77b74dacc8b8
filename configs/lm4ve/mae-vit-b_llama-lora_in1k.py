# LUViT's first stage (arXiv 2507.00754): a masked autoencoder whose encoder ends in
# LLaMA-7B's last block with LoRA. vit-b_llama-lora_in1k.py, the second stage, starts
# from its checkpoint.
_base_ = [
    'mmpretrain::mae/mae_vit-base-p16_8xb512-amp-coslr-300e_in1k.py',
    '../_base_/image/checked-imagenet.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        type='LLMBlockInsert',
        after='layers.11',
        backbone=dict(
            type='mmpretrain.MAEViT', arch='b', patch_size=16, mask_ratio=0.75
        ),
        neck=dict(
            type='LLMBlockNeck',
            in_channels=768,
            block=dict(
                type='LLMBlock',
                checkpoint='data/llm/llama-7b',
                layers=(-1,),
                dtype='float16',
                trainable='lora',
                lora=dict(r=16),
            ),
        ),
    )
)
# Without the scope that an inherited function would be called with.
train_dataloader = dict(
    collate_fn=dict(_delete_=True, type='default_collate'), **_base_.checked
)
default_hooks = _base_.checkpoint_hooks
resume = False
