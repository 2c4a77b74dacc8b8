# The paper's model on ImageNet-1k: what of the block does it?
_base_ = './_base_/in1k_100e.py'

name = 'vit-s_in1k_controls'
title = 'ImageNet-1k, ViT-S, 100 epochs: controls'
subject = 'frozen pre-trained'

_random = {'model.neck.block.pretrained': False, 'model.neck.block.seed': '{seed}'}
variants = {
    'none': dict(config='../lm4ve/vit-s_in1k.py'),
    'frozen pre-trained': dict(),
    'frozen random': dict(options=_random),
    'trained random': dict(
        config='../lm4ve/vit-s_llama-randinit-trained_in1k.py',
        options={'model.neck.block.seed': '{seed}'},
    ),
    'MLP': dict(config='../lm4ve/vit-s_mlp_in1k.py'),
    'norms only': dict(config='../lm4ve/vit-s_llama-norms_in1k.py'),
    'fine-tuned': dict(config='../lm4ve/vit-s_llama-finetune_in1k.py'),
}

published = dict(
    source='arXiv 2310.12973, 100 epochs, one training each',
    scores={
        'none': {'accuracy/top1': 75.3},
        'frozen pre-trained': {'accuracy/top1': 75.8},
        'MLP': {'accuracy/top1': 75.5},
        'fine-tuned': {'accuracy/top1': 76.8},
    },
)
