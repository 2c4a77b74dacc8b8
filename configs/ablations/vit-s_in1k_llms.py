# Which language model?
_base_ = ['./_base_/in1k_100e.py', './_base_/language_models.py']

name = 'vit-s_in1k_llms'
title = 'ImageNet-1k, ViT-S, 100 epochs: language model'

variants = {'none': dict(config='../lm4ve/vit-s_in1k.py')}
