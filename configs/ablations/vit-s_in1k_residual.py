# A residual connection around the block (arXiv 2403.17343), or none (the paper)?
_base_ = './_base_/in1k_100e.py'

name = 'vit-s_in1k_residual'
title = 'ImageNet-1k, ViT-S, 100 epochs: residual connections'
reference = 'none'

variants = {
    mode: dict(options={'model.neck.residual': mode})
    for mode in ('none', 'inner', 'outer', 'both')
}
