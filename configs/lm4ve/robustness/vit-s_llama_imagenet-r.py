# ViT-S with LLaMA-7B's last block, trained on ImageNet-1k, tested on ImageNet-R.
_base_ = [
    '../vit-s_llama_in1k.py', '../../_base_/image/imagenet-r.py'
]

test_dataloader = {{_base_.variant_dataloader}}
test_evaluator = {{_base_.variant_evaluator}}
