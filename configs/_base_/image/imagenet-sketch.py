# ImageNet-Sketch (50,889 images of all 1,000 classes).
# data/imagenet-sketch/sketch/<wnid>/*.JPEG, as its archive unpacks
# A config with test fields of its own takes these two variables as its
# test_dataloader and test_evaluator; `_delete_` clears what it inherited.
variant_dataloader = dict(
    batch_size=64,
    num_workers=5,
    dataset=dict(
        _delete_=True,
        type='lm4ve.ImageNetVariant',
        variant='sketch',
        data_root='data/imagenet-sketch',
        data_prefix='sketch',
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
    _delete_=True, type='Accuracy', topk=(1, 5))
