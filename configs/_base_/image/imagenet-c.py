# ImageNet-C: 15 corruptions at 5 severities of the 50,000 validation images.
# data/imagenet-c/<corruption>/<severity>/<wnid>/*.JPEG, 224 x 224 pixels already:
# as in its own code they are not resized before the crop.
# A config with test fields of its own takes these two variables as its
# test_dataloader and test_evaluator; `_delete_` clears what it inherited.
variant_dataloader = dict(
    batch_size=64,
    num_workers=5,
    dataset=dict(
        _delete_=True,
        type='lm4ve.ImageNetC',
        data_root='data/imagenet-c',
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='CenterCrop', crop_size=224),
            dict(
                type='PackInputs',
                meta_keys=('sample_idx', 'img_path', 'ori_shape', 'img_shape',
                           'corruption', 'severity')),
        ]),
    sampler=dict(type='DefaultSampler', shuffle=False))
variant_evaluator = dict(
    _delete_=True, type='lm4ve.CorruptionAccuracy')
