# ImageNet-A (7,500 images of 200 classes), scored among those classes.
# data/imagenet-a/<wnid>/*.jpg
# A config that tests on it writes
#   test_dataloader = dict(dataset=dict(_delete_=True, **_base_.variant))
#   test_evaluator = dict(_delete_=True, **_base_.variant_evaluator)
variant = dict(
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
            interpolation='bicubic',
        ),
        dict(type='CenterCrop', crop_size=224),
        dict(type='PackInputs'),
    ],
)
variant_evaluator = dict(type='lm4ve.SubsetAccuracy', topk=(1, 5))
