# ViT-S with LLaMA-7B's last block, trained on ImageNet-1k, tested on ImageNet-A.
_base_ = ['../vit-s_llama_in1k.py', '../../_base_/image/imagenet-a.py']

test_dataloader = dict(dataset=dict(_delete_=True, **_base_.variant))
test_evaluator = dict(_delete_=True, **_base_.variant_evaluator)
