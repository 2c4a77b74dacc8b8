# METER with LLaMA-7B's last block, frozen, on VQAv2.
_base_ = ['./meter_vqav2.py', '../_base_/vision_language/llama-7b.py']

model = _base_.with_block
