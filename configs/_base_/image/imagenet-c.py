# ImageNet-C: 15 corruptions at 5 severities of the 50,000 validation images.
# data/imagenet-c/<corruption>/<severity>/<wnid>/*.JPEG, 224 x 224 pixels already:
# as in its own code they are not resized before the crop. Used as imagenet-a.py is.
variant = dict(
    type='lm4ve.ImageNetC',
    data_root='data/imagenet-c',
    pipeline=[
        dict(type='LoadImageFromFile'),
        dict(type='CenterCrop', crop_size=224),
        dict(
            type='PackInputs',
            meta_keys=(
                'sample_idx',
                'img_path',
                'ori_shape',
                'img_shape',
                'corruption',
                'severity',
            ),
        ),
    ],
)
variant_evaluator = dict(type='lm4ve.CorruptionAccuracy')
