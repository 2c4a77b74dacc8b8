# Task01_BrainTumour of MSD, tumour against the rest on the first of four kinds of MR,
# at 128 voxels a side, much as MedVisionLlama's code prepares it. Another task:
# data_root, and of LoadVolume channels, num_classes and use (None keeps all channels;
# then also in_channels of the backbone); without binary=True model.num_classes is that
# of LoadVolume.
data_root = 'data/msd/Task01_BrainTumour'
size = (128, 128, 128)
load = dict(type='lm4ve.LoadVolume', channels=4, num_classes=4, use=0, binary=True)
prepare = [
    dict(type='lm4ve.MonaiTransform', name='Orientationd', axcodes='RAS', labels=None),
    dict(type='lm4ve.MonaiTransform', name='ScaleIntensityd', keys='img'),
    dict(
        type='lm4ve.MonaiTransform',
        name='Resized',
        spatial_size=size,
        mode=('trilinear', 'nearest'),
    ),
]
# Five degrees, and a tenth of brightness, in a third of the volumes each.
train_pipeline = [
    load,
    *prepare,
    dict(
        type='lm4ve.MonaiTransform',
        name='RandRotated',
        range_z=0.0873,
        prob=0.33,
        mode=('bilinear', 'nearest'),
    ),
    dict(
        type='lm4ve.MonaiTransform',
        name='RandScaleIntensityd',
        keys='img',
        factors=0.1,
        prob=0.33,
    ),
    dict(type='lm4ve.PackVolume'),
]
test_pipeline = [load, *prepare, dict(type='lm4ve.PackVolume')]


def _loader(split, pipeline):
    return dict(
        batch_size=4 if split == 'train' else 1,
        num_workers=4,
        dataset=dict(
            type='lm4ve.Decathlon', data_root=data_root, split=split, pipeline=pipeline
        ),
        sampler=dict(type='DefaultSampler', shuffle=split == 'train'),
    )


train_dataloader = _loader('train', train_pipeline)
val_dataloader = _loader('val', test_pipeline)
test_dataloader = _loader('test', test_pipeline)
val_evaluator = dict(type='lm4ve.VolumeMetric')
test_evaluator = val_evaluator
