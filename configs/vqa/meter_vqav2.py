# METER on VQAv2, without a block.
_base_ = [
    '../_base_/vqa/vqa.py',
    '../_base_/vqa/vqav2.py',
    '../_base_/default_runtime.py',
]
