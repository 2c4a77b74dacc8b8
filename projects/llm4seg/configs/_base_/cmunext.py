# CMUNeXt (arXiv 2308.01239) on mmsegmentation, one lesion against the rest, and the
# recipe of its code: SGD, 300 epochs, the rate falls to zero by a power of 0.9 after
# each step. The released code normalizes blue by the mean of red and the reverse, and
# so does this.
_base_ = 'lm4ve::_base_/default_runtime.py'

custom_imports = dict(imports=['lm4ve.openmmlab', 'llm4seg'])
default_scope = 'mmseg'
data_preprocessor = dict(
    type='SegDataPreProcessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    bgr_to_rgb=False,
    size=(256, 256),
    seg_pad_val=255,
)
dims = [16, 32, 128, 160, 256]
model = dict(
    type='EncoderDecoder',
    data_preprocessor=data_preprocessor,
    backbone=dict(type='lm4ve.CMUNeXt', dims=dims),
    decode_head=dict(
        type='lm4ve.CMUNeXtHead',
        in_channels=dims,
        num_classes=2,
        out_channels=1,
        threshold=0.5,
        loss_decode=[
            dict(type='CrossEntropyLoss', use_sigmoid=True, loss_weight=0.5),
            dict(type='lm4ve.BinaryDiceLoss'),
        ],
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
optim_wrapper = dict(
    optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=1e-4)
)
param_scheduler = dict(
    type='PolyLR',
    power=0.9,
    eta_min=0,
    begin=0,
    end=300,
    by_epoch=True,
    convert_to_iter_based=True,
)
train_cfg = dict(by_epoch=True, max_epochs=300, val_interval=10)
val_cfg = dict()
test_cfg = dict()
