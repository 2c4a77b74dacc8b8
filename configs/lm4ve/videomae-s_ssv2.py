# VideoMAE ViT-S on Something-Something V2, the paper's baseline.
_base_ = [
    '../_base_/models/videomae-s_ssv2.py',
    '../_base_/datasets/ssv2_videomae.py',
    '../_base_/schedules/videomae-s_40e.py', '../_base_/video_runtime.py'
]
