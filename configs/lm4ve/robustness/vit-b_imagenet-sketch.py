# ViT-B, trained on ImageNet-1k, tested on ImageNet-Sketch.
_base_ = ['../vit-b_in1k.py', '../../_base_/image/imagenet-sketch.py']

test_dataloader = dict(dataset=dict(_delete_=True, **_base_.variant))
test_evaluator = dict(_delete_=True, **_base_.variant_evaluator)
