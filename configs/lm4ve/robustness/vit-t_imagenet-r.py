# ViT-T, trained on ImageNet-1k, tested on ImageNet-R.
_base_ = '../vit-t_in1k.py'

test_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='lm4ve.ImageNetVariant',
        variant='r',
        data_root='data/imagenet-r',
        pipeline=_base_.test_pipeline,
    )
)
test_evaluator = dict(_delete_=True, type='lm4ve.SubsetAccuracy', topk=(1, 5))
