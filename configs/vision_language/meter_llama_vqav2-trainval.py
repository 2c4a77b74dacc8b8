# METER with LLaMA-7B's last block, frozen, trained on train2014 and val2014.
_base_ = ['./meter_vqav2-trainval.py', '../_base_/vision_language/llama-7b.py']

model = _base_.with_block
