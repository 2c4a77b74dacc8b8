# SQA3D with LLaMA-7B's last block, frozen, on the objects after the fusion.
_base_ = ['./sqa3d.py', '../_base_/necks/llama-7b_after-fusion.py']

model = _base_.with_block
