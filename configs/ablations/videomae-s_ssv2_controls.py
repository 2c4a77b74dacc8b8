# The paper's video model on Something-Something v2: the controls.
_base_ = './_base_/paper_controls.py'

name = 'videomae-s_ssv2_controls'
title = 'Something-Something v2, VideoMAE ViT-S: controls'
base = '../video/videomae-s_ssv2.py'
metric = 'acc/top1'

_block = '../video/videomae-s_llama_ssv2.py'
variants = {
    'frozen pre-trained': dict(config=_block),
    'frozen random': dict(config=_block),
    'trained random': dict(config=_block),
    'MLP': dict(config=_block),
}

published = dict(
    source='arXiv 2310.12973, one training each',
    scores={
        'none': {'acc/top1': 64.71, 'acc/top5': 89.15},
        'frozen pre-trained': {'acc/top1': 65.89, 'acc/top5': 89.93},
        'trained random': {'acc/top1': 64.1, 'acc/top5': 88.8},
        'MLP': {'acc/top1': 63.8, 'acc/top5': 88.9},
    },
)
