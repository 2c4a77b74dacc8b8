# UPerNet on Swin-T: LLaMA-7B's last block on the last map, before its norm, in
# mmsegmentation's recipe for ADE20K. Swin's stages return four things, of which
# the third is the map. Not in the paper.
_base_ = [
    'mmseg::swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py',
    '../_base_/checkpoints.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        type='LLMBlockInsert',
        after='stages.3',
        index=2,
        backbone=_base_.model.backbone,
        neck=dict(
            type='LLMBlockNeck',
            in_channels=768,
            block=dict(
                type='LLMBlock',
                checkpoint='data/llm/llama-7b',
                layers=(-1,),
                dtype='auto',
            ),
        ),
    )
)
default_hooks = _base_.checkpoint_hooks
randomness = _base_.fixed_seed
