# METER with LLaMA-7B's last block, frozen, trained on train2014 and val2014.
_base_ = ['./meter_vqav2-trainval.py', '../_base_/necks/llama-7b_after-fusion.py']

model = _base_.with_block
