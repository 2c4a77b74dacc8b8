# METER with LLaMA-7B's last block, frozen, on Flickr30k retrieval.
_base_ = ['./meter_flickr30k.py', '../_base_/necks/llama-7b_after-fusion.py']

model = _base_.with_block
