# LUViT's first stage (arXiv 2507.00754): a masked autoencoder whose encoder ends in
# LLaMA-7B's last block with LoRA. vit-b_llama-lora_in1k.py, the second stage, starts
# from its checkpoint.
_base_ = [
    'mmpretrain::mae/mae_vit-base-p16_8xb512-amp-coslr-300e_in1k.py',
    '../_base_/image/checked-imagenet.py',
    '../_base_/necks/luvit.py',
]

_mae = dict(type='mmpretrain.MAEViT', arch='b', patch_size=16, mask_ratio=0.75)
model = dict(backbone=dict(_delete_=True, backbone=_mae, **_base_.luvit))
# Without the scope that an inherited function would be called with.
train_dataloader = dict(
    collate_fn=dict(_delete_=True, type='default_collate'), **_base_.checked
)
default_hooks = _base_.checkpoint_hooks
resume = False
