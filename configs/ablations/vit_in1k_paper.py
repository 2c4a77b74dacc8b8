# The paper's image classifiers on ImageNet-1k, at their full length of 300 epochs.
name = 'vit_in1k_paper'
title = 'ImageNet-1k, 300 epochs: the paper'
base = '../lm4ve/vit-s_in1k.py'
metric = 'accuracy/top1'
seeds = 1
subject = 'ViT-S + LLaMA'
# For the tests on ImageNet-C, -A, -Sketch and -R.
keep_checkpoints = True

_folder = '../lm4ve/'
variants = {
    'ViT-T': dict(config=_folder + 'vit-t_in1k.py'),
    'ViT-T + LLaMA': dict(config=_folder + 'vit-t_llama_in1k.py'),
    'ViT-S': dict(),
    'ViT-S + LLaMA': dict(config=_folder + 'vit-s_llama_in1k.py'),
    'ViT-S + MLP': dict(config=_folder + 'vit-s_mlp_in1k.py'),
    'ViT-S + random, trained': dict(
        config=_folder + 'vit-s_llama-randinit-trained_in1k.py'
    ),
    'ViT-S + LLaMA, fine-tuned': dict(config=_folder + 'vit-s_llama-finetune_in1k.py'),
    'ViT-B': dict(config=_folder + 'vit-b_in1k.py'),
    'ViT-B + LLaMA': dict(config=_folder + 'vit-b_llama_in1k.py'),
}

published = dict(
    source='arXiv 2310.12973, one training each',
    scores={
        'ViT-T': {'accuracy/top1': 72.1},
        'ViT-T + LLaMA': {'accuracy/top1': 73.2},
        'ViT-S': {'accuracy/top1': 80.1},
        'ViT-S + LLaMA': {'accuracy/top1': 80.7},
        'ViT-S + MLP': {'accuracy/top1': 80.4},
        'ViT-S + random, trained': {'accuracy/top1': 76.9},
        'ViT-S + LLaMA, fine-tuned': {'accuracy/top1': 78.9},
        'ViT-B': {'accuracy/top1': 80.6},
        'ViT-B + LLaMA': {'accuracy/top1': 81.7},
    },
)
