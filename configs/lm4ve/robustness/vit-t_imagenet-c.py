# ViT-T, trained on ImageNet-1k, tested on ImageNet-C.
_base_ = ['../vit-t_in1k.py', '../../_base_/image/imagenet-c.py']

test_dataloader = dict(dataset=dict(_delete_=True, **_base_.variant))
test_evaluator = dict(_delete_=True, **_base_.variant_evaluator)
