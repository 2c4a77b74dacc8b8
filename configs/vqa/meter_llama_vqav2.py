# METER with LLaMA-7B's last block, frozen, on VQAv2.
_base_ = ['./meter_vqav2.py', '../_base_/necks/llama-7b_after-fusion.py']

model = _base_.with_block
