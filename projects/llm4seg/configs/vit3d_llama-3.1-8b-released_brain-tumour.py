# MedVisionLlama as its code trains it (AS-Lab/Marthi-et-al-2025-MedVisionLlama-..., commit
# 1b951b5). Each comment names a defect or an accident of that code; the sound recipe, in
# vit3d_llama-3.1-8b_brain-tumour.py, has none of them.
#
# One defect is left out: that code divides the three copies of all volumes at random
# (scripts/train.py:78), so that a volume it trains on is also in its validation. Here each
# volume is in one part only. Metrics are ours, too. Both recipes have the frozen mappers,
# whose biases and LoRA alone train (src/models/medvisionllama.py:65-66).
_base_ = './vit3d_llama-3.1-8b_brain-tumour.py'

size = (128, 128, 128)
load = dict(type='lm4ve.LoadVolume', channels=4, num_classes=4, binary=True)
prepare = [
    # Arrays of SimpleITK, in which a file's axes are reversed (datasets.py:34), whatever
    # the orientation is.
    dict(type='lm4ve.ReverseAxes'),
    # The range is that of all four kinds of MR, of which one is used (datasets.py:127-129).
    dict(type='lm4ve.MonaiTransform', name='ScaleIntensityd', keys='img'),
    dict(type='lm4ve.SelectChannel', channel=0),
    # Each voxel that touches a tumour becomes tumour (datasets.py:135).
    dict(type='lm4ve.ZoomVolume', size=size),
]
# Image and label turn in different planes, so that they no longer fit each other: the
# axes (1, 2) of an image with a channel and of a label without one (datasets.py:175-176).
rotate = [
    dict(type='lm4ve.RotateVolume', degrees=5, image_axes=(0, 1), label_axes=(1, 2)),
]
# First the brightness, then the contrast around the mean (datasets.py:260, 274).
change = [
    dict(
        type='lm4ve.MonaiTransform',
        name='RandScaleIntensityd',
        keys='img',
        factors=0.1,
        prob=1.0,
    ),
    dict(
        type='lm4ve.MonaiTransform',
        name='RandScaleIntensityFixedMeand',
        keys='img',
        factors=0.1,
        prob=1.0,
    ),
]
pack = dict(type='lm4ve.PackVolume')


def _copy_of_volumes(augment):
    return dict(
        type='lm4ve.Decathlon',
        data_root=_base_.data_root,
        split='train',
        pipeline=[load, *prepare, *augment, pack],
    )


# An epoch has each volume three times (train.py:73), so that 100 of them are as long as
# 300 of the sound recipe.
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='ConcatDataset',
        datasets=[
            _copy_of_volumes([]),
            _copy_of_volumes(rotate),
            _copy_of_volumes(change),
        ],
    )
)
test_pipeline = [load, *prepare, pack]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))

model = dict(
    # Half the cross-entropy trains: Dice of thresholded outputs has no gradient
    # (losses.py:66, 78).
    loss=dict(type='lm4ve.DiceBCELoss', threshold=0.5),
    backbone=dict(
        neck=dict(
            # Query head j reads head j % 8 of keys and values, where Llama's reads
            # j // 4 (llama.py:69).
            block=dict(kv_heads='tiled'),
        )
    ),
)
# The loss of *training* halves the rate (train.py:192) and chooses the checkpoint
# (train.py:195).
param_scheduler = dict(
    _delete_=True,
    type='ReduceOnPlateauLR',
    monitor='train/loss',
    factor=0.5,
    patience=10,
)
train_cfg = dict(val_interval=1)
default_hooks = dict(
    training_loss=dict(type='lm4ve.TrainingLossHook'),
    checkpoint=dict(save_best='train/loss', rule='less'),
)
