# LUViT's second stage: MAE's fine-tuning of the encoder, the block and its adapters
# that mae-vit-b_llama-lora_in1k.py has pre-trained. Another place of its checkpoint:
#   --cfg-options model.backbone.backbone.init_cfg.checkpoint=/path/to/epoch_300.pth
_base_ = [
    'mmpretrain::mae/benchmarks/vit-base-p16_8xb128-coslr-100e_in1k.py',
    '../_base_/image/checked-imagenet.py',
]

# This stage has no loss scaler, so that small gradients would vanish in a float16 block.
model = dict(
    backbone=dict(
        _delete_=True,
        type='LLMBlockInsert',
        after='layers.11',
        backbone=dict(
            type='mmpretrain.VisionTransformer',
            arch='base',
            img_size=224,
            patch_size=16,
            drop_path_rate=0.1,
            out_type='avg_featmap',
            final_norm=False,
            init_cfg=dict(
                type='Pretrained',
                checkpoint='work_dirs/mae-vit-b_llama-lora_in1k/epoch_300.pth',
                prefix='backbone.',
            ),
        ),
        neck=dict(
            type='LLMBlockNeck',
            in_channels=768,
            block=dict(
                type='LLMBlock',
                checkpoint='data/llm/llama-7b',
                layers=(-1,),
                dtype='auto',
                trainable='lora',
                lora=dict(r=16),
            ),
        ),
    )
)
train_dataloader = _base_.checked
val_dataloader = _base_.checked
test_dataloader = _base_.checked
default_hooks = _base_.checkpoint_hooks
