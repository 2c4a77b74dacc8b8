# The paper's video model on Something-Something v2: the controls.
name = 'videomae-s_ssv2_controls'
title = 'Something-Something v2, VideoMAE ViT-S: controls'
base = '../video/videomae-s_ssv2.py'
metric = 'acc/top1'
seeds = 3
reference = 'frozen pre-trained'

variants = {
    'none': dict(),
    'frozen pre-trained': dict(config='../video/videomae-s_llama_ssv2.py'),
    'frozen random': dict(
        config='../video/videomae-s_llama-randinit-frozen_ssv2.py',
        options={'model.neck.block.seed': '{seed}'},
    ),
    'trained random': dict(
        config='../video/videomae-s_llama-randinit-trained_ssv2.py',
        options={'model.neck.block.seed': '{seed}'},
    ),
    'MLP': dict(config='../video/videomae-s_mlp_ssv2.py'),
}
