# ViT-T, trained on ImageNet-1k, tested on ImageNet-Sketch.
_base_ = '../vit-t_in1k.py'

test_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='lm4ve.ImageNetVariant',
        variant='sketch',
        data_root='data/imagenet-sketch',
        data_prefix='sketch',
        pipeline=_base_.test_pipeline,
    )
)
test_evaluator = dict(_delete_=True, type='Accuracy', topk=(1, 5))
