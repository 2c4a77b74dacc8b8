# Which language model?
_base_ = ['./_base_/in1k_100e.py', './_base_/language_models.py']

name = 'vit-s_in1k_llms'
title = 'ImageNet-1k, ViT-S, 100 epochs: language model'

variants = {'none': dict(config='../lm4ve/vit-s_in1k.py')}

published = dict(
    source='arXiv 2310.12973, 100 epochs, one training each',
    scores={
        'none': {'accuracy/top1': 75.25},
        'OPT-125M': {'accuracy/top1': 71.63},
        'OPT-350M': {'accuracy/top1': 71.56},
        'OPT-1.3B': {'accuracy/top1': 75.62},
        'OPT-2.7B': {'accuracy/top1': 75.74},
        'OPT-6.7B': {'accuracy/top1': 76.29},
    },
)
