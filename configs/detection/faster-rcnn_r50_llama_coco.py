# Faster R-CNN on ResNet-50: LLaMA-7B's last block on the last map, which FPN reads
# beside the others, in mmdetection's recipe for COCO. Not in the paper.
_base_ = [
    'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    '../_base_/checkpoints.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        type='LLMBlockInsert',
        after='layer4',
        backbone=_base_.model.backbone,
        neck=dict(
            type='LLMBlockNeck',
            in_channels=2048,
            block=dict(
                type='LLMBlock',
                checkpoint='data/llm/llama-7b',
                layers=(-1,),
                dtype='auto',
            ),
        ),
    ),
    # The same numbers without mmcv's compiled operator.
    roi_head=dict(bbox_roi_extractor=dict(roi_layer=dict(use_torchvision=True))),
)
default_hooks = _base_.checkpoint_hooks
randomness = _base_.fixed_seed
