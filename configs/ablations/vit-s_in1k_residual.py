# A residual connection around the block (arXiv 2403.17343), or none (the paper)?
name = 'vit-s_in1k_residual'
title = 'ImageNet-1k, ViT-S, 100 epochs: residual connections'
base = '../lm4ve/100e/vit-s_llama_100e_in1k.py'
metric = 'accuracy/top1'
seeds = 3
reference = 'none'

variants = {
    mode: dict(options={'model.neck.residual': mode})
    for mode in ('none', 'inner', 'outer', 'both')
}
