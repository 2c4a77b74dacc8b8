# Which language model? OPT's configs train at a fifth of the rate, as the paper's.
name = 'vit-s_in1k_llms'
title = 'ImageNet-1k, ViT-S, 100 epochs: language model'
base = '../lm4ve/100e/vit-s_100e_in1k.py'
metric = 'accuracy/top1'
seeds = 3
reference = 'LLaMA-7B'

_100e = '../lm4ve/100e/vit-s_'
variants = {
    'none': dict(),
    **{
        f'OPT-{size.upper()}': dict(config=f'{_100e}opt-{size}_100e_in1k.py')
        for size in ('125m', '350m', '1.3b', '2.7b', '6.7b')
    },
    'LLaMA-7B': dict(config=_100e + 'llama_100e_in1k.py'),
}
