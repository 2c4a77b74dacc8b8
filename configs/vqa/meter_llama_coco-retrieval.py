# METER with LLaMA-7B's last block, frozen, on COCO retrieval.
_base_ = ['./meter_coco-retrieval.py', '../_base_/necks/llama-7b_after-fusion.py']

model = _base_.with_block
