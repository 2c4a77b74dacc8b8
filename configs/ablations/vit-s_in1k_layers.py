# Which of LLaMA-7B's 32 layers? The paper's figure of it, with seeds.
_base_ = './_base_/in1k_100e.py'

name = 'vit-s_in1k_layers'
title = 'ImageNet-1k, ViT-S, 100 epochs: layer of LLaMA-7B'
reference = 'layer 31'

variants = {
    f'layer {i}': dict(options={'model.neck.block.layers': (i,)})
    for i in (0, 3, 7, 11, 15, 19, 23, 27, 31)
}
