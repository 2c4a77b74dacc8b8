# SQA3D with LLaMA-7B's last block, frozen, on the objects after the fusion.
_base_ = ['./sqa3d.py', '../_base_/vision_language/llama-7b.py']

model = _base_.with_block
