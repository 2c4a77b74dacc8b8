# DeiT-B by the same recipe as vit-s_in1k.py.
_base_ = './vit-s_in1k.py'

model = dict(backbone=dict(arch='deit-base'), head=dict(in_channels=768))
