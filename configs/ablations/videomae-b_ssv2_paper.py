# The paper's larger video model on Something-Something v2.
name = 'videomae-b_ssv2_paper'
title = 'Something-Something v2, VideoMAE ViT-B: the paper'
base = '../video/videomae-b_ssv2.py'
metric = 'acc/top1'
seeds = 3
subject = 'LLaMA'

variants = {
    'none': dict(),
    'LLaMA': dict(config='../video/videomae-b_llama_ssv2.py'),
}

published = dict(
    source='arXiv 2310.12973, one training each',
    scores={
        'none': {'acc/top1': 64.97, 'acc/top5': 89.5},
        'LLaMA': {'acc/top1': 66.03, 'acc/top5': 90.25},
    },
)
