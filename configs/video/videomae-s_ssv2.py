# VideoMAE ViT-S on Something-Something V2, the paper's baseline.
_base_ = [
    '../_base_/video/videomae-s.py',
    '../_base_/video/ssv2.py',
    '../_base_/video/schedule_40e.py',
    '../_base_/video/runtime.py',
]
