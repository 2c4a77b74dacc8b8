# Where in the encoder? After the last block (the paper), in the middle, at the head.
_base_ = './_base_/in1k_100e.py'

name = 'vit-s_in1k_places'
title = 'ImageNet-1k, ViT-S, 100 epochs: place of the block'
reference = 'tail'

variants = {
    'tail': dict(),
    'middle': dict(config='../lm4ve/vit-s_llama-middle_in1k.py'),
    'head': dict(config='../lm4ve/vit-s_llama-head_in1k.py'),
}

published = dict(
    source='arXiv 2310.12973, 100 epochs, one training each',
    scores={
        'tail': {'accuracy/top1': 75.84},
        'middle': {'accuracy/top1': 75.55},
        'head': {'accuracy/top1': 72.66},
    },
)
