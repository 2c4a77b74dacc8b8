# How many blocks? The last one, two, three, four of LLaMA-7B.
name = 'vit-s_in1k_blocks'
title = 'ImageNet-1k, ViT-S, 100 epochs: number of blocks'
base = '../lm4ve/100e/vit-s_llama_100e_in1k.py'
metric = 'accuracy/top1'
seeds = 3
reference = '1 block'
xlabel = 'blocks'

variants = {
    f'{n} block' + ('s' if n > 1 else ''): dict(
        x=n, options={'model.neck.block.layers': tuple(range(-n, 0))})
    for n in (1, 2, 3, 4)
}
