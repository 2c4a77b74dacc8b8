# ViT-B, trained on ImageNet-1k, tested on ImageNet-C.
_base_ = [
    '../vit-b_in1k.py', '../../_base_/image/imagenet-c.py'
]

test_dataloader = {{_base_.variant_dataloader}}
test_evaluator = {{_base_.variant_evaluator}}
