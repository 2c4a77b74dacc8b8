# ImageNet-A (7,500 images of 200 classes), scored among those classes.
# data/imagenet-a/<wnid>/*.jpg
# A config with test fields of its own takes these two variables as its
# test_dataloader and test_evaluator; `_delete_` clears what it inherited.
variant_dataloader = dict(
    batch_size=64,
    num_workers=5,
    dataset=dict(
        _delete_=True,
        type='lm4ve.ImageNetVariant',
        variant='a',
        data_root='data/imagenet-a',
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(
                type='ResizeEdge',
                scale=256,
                edge='short',
                backend='pillow',
                interpolation='bicubic'),
            dict(type='CenterCrop', crop_size=224),
            dict(type='PackInputs'),
        ]),
    sampler=dict(type='DefaultSampler', shuffle=False))
variant_evaluator = dict(
    _delete_=True, type='lm4ve.SubsetAccuracy', topk=(1, 5))
