# METER with LLaMA-7B's last block, frozen, on COCO retrieval.
_base_ = ['./meter_coco-retrieval.py', '../_base_/vision_language/llama-7b.py']

model = _base_.with_block
