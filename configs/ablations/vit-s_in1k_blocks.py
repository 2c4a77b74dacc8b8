# How many blocks? The last one, two, three, four of LLaMA-7B.
_base_ = './_base_/in1k_100e.py'

name = 'vit-s_in1k_blocks'
title = 'ImageNet-1k, ViT-S, 100 epochs: number of blocks'
reference = '1 block'

variants = {
    f'{n} block' + ('s' if n > 1 else ''): dict(
        options={'model.neck.block.layers': tuple(range(-n, 0))}
    )
    for n in (1, 2, 3, 4)
}

published = dict(
    source='arXiv 2310.12973, 100 epochs, one training each',
    scores={
        '1 block': {'accuracy/top1': 75.84},
        '2 blocks': {'accuracy/top1': 77.1},
    },
)
