# The paper's model on ImageNet-1k, at the ablations' 100 epochs: what of the block
# does it? A trial takes about a day on 8 GPUs; see docs/guides/ablations.md.
name = 'vit-s_in1k_controls'
title = 'ImageNet-1k, ViT-S, 100 epochs: controls'
base = '../lm4ve/100e/vit-s_100e_in1k.py'
metric = 'accuracy/top1'
seeds = 3
reference = 'frozen pre-trained'

_100e = '../lm4ve/100e/vit-s_'
variants = {
    'none': dict(),
    'frozen pre-trained': dict(config=_100e + 'llama_100e_in1k.py'),
    'frozen random': dict(
        config=_100e + 'llama-randinit-frozen_100e_in1k.py',
        options={'model.neck.block.seed': '{seed}'}),
    'trained random': dict(
        config=_100e + 'llama-randinit-trained_100e_in1k.py',
        options={'model.neck.block.seed': '{seed}'}),
    'MLP': dict(config=_100e + 'mlp_100e_in1k.py'),
    'norms only': dict(config=_100e + 'llama-norms_100e_in1k.py'),
    'fine-tuned': dict(config=_100e + 'llama-finetune_100e_in1k.py'),
}
