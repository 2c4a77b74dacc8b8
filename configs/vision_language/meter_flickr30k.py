# METER on Flickr30k retrieval, without a block.
_base_ = [
    '../_base_/vision_language/retrieval.py',
    '../_base_/vision_language/flickr30k.py',
    '../_base_/default_runtime.py',
]
