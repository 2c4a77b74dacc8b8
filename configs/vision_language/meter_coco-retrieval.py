# METER on COCO retrieval, without a block.
_base_ = [
    '../_base_/vision_language/retrieval.py',
    '../_base_/vision_language/coco-retrieval.py',
    '../_base_/default_runtime.py',
]
