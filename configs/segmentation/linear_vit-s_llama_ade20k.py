# A linear head on ViT-S: LLaMA-7B's last block after its last layer, before the
# final norm, in mmsegmentation's recipe for ADE20K (Segmenter's, its "fcn" form).
# Not in the paper.
_base_ = [
    'mmseg::segmenter/segmenter_vit-s_fcn_8xb1-160k_ade20k-512x512.py',
    '../_base_/checkpoints.py',
]

model = dict(
    # The host would hand this to the outer backbone.
    pretrained=None,
    backbone=dict(
        _delete_=True,
        type='LLMBlockInsert',
        after='layers.11',
        backbone=dict(**_base_.model.backbone, pretrained=_base_.model.pretrained),
        neck=dict(
            type='LLMBlockNeck',
            in_channels=384,
            block=dict(
                type='LLMBlock',
                checkpoint='data/llm/llama-7b',
                layers=(-1,),
                dtype='auto',
            ),
        ),
    ),
)
default_hooks = _base_.checkpoint_hooks
randomness = _base_.fixed_seed
