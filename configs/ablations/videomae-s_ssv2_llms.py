# Which language model, for action recognition? The paper has LLaMA-7B's only.
_base_ = './_base_/language_models.py'

name = 'videomae-s_ssv2_llms'
title = 'Something-Something v2, VideoMAE ViT-S: language model'
base = '../video/videomae-s_llama_ssv2.py'
metric = 'acc/top1'
seeds = 3

variants = {'none': dict(config='../video/videomae-s_ssv2.py')}
