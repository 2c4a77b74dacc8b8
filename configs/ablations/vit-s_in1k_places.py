# Where in the encoder? After the last block (the paper), in the middle, at the head.
name = 'vit-s_in1k_places'
title = 'ImageNet-1k, ViT-S, 100 epochs: place of the block'
base = '../lm4ve/100e/vit-s_llama_100e_in1k.py'
metric = 'accuracy/top1'
seeds = 3
reference = 'tail'

variants = {
    'tail': dict(),
    'middle': dict(config='../lm4ve/100e/vit-s_llama-middle_100e_in1k.py'),
    'head': dict(config='../lm4ve/100e/vit-s_llama-head_100e_in1k.py'),
}
