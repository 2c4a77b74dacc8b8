# METER on VQAv2, without a block.
_base_ = [
    '../_base_/vision_language/vqa.py',
    '../_base_/vision_language/vqav2.py',
    '../_base_/default_runtime.py',
]
