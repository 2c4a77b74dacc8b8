# METER with LLaMA-7B's last block, frozen, on Flickr30k retrieval.
_base_ = ['./meter_flickr30k.py', '../_base_/vision_language/llama-7b.py']

model = _base_.with_block
