# The paper's video model on Something-Something v2: the controls.
_base_ = './_base_/paper_controls.py'

name = 'videomae-s_ssv2_controls'
title = 'Something-Something v2, VideoMAE ViT-S: controls'
base = '../video/videomae-s_ssv2.py'
metric = 'acc/top1'

variants = {
    'frozen pre-trained': dict(config='../video/videomae-s_llama_ssv2.py'),
    'frozen random': dict(config='../video/videomae-s_llama-randinit-frozen_ssv2.py'),
    'trained random': dict(config='../video/videomae-s_llama-randinit-trained_ssv2.py'),
    'MLP': dict(config='../video/videomae-s_mlp_ssv2.py'),
}
