# METER on Flickr30k retrieval, without a block.
_base_ = [
    '../_base_/vqa/retrieval.py',
    '../_base_/vqa/flickr30k.py',
    '../_base_/default_runtime.py',
]
