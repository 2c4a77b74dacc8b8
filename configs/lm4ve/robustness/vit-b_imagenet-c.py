# ViT-B, trained on ImageNet-1k, tested on ImageNet-C.
_base_ = '../vit-b_in1k.py'

test_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='lm4ve.ImageNetC',
        data_root='data/imagenet-c',
        # Its files have 224 x 224 pixels already: as in its own code nothing is resized.
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
)
test_evaluator = dict(_delete_=True, type='lm4ve.CorruptionAccuracy')
