# METER on COCO retrieval, without a block.
_base_ = [
    '../_base_/vqa/retrieval.py',
    '../_base_/vqa/coco-retrieval.py',
    '../_base_/default_runtime.py',
]

# A validation scores 125 million pairs: once, at the end.
train_cfg = dict(val_interval=10)
