# ViT-B with LLaMA-7B's last block, trained on ImageNet-1k, tested on ImageNet-Sketch.
_base_ = [
    '../vit-b_llama_in1k.py', '../../_base_/image/imagenet-sketch.py'
]

test_dataloader = {{_base_.variant_dataloader}}
test_evaluator = {{_base_.variant_evaluator}}
