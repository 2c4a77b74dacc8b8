# VideoMAE ViT-S with LLaMA-7B's layer 15 on Kinetics-400. Not in the paper:
# VideoMAE's recipe for that set (150 epochs), with the same neck.
_base_ = [
    '../_base_/video/videomae-s.py',
    '../_base_/video/k400.py',
    '../_base_/video/schedule_40e.py', '../_base_/video/runtime.py',
    '../_base_/llm/llama-7b_layer15.py'
]

model = dict(
    backbone=dict(
        return_feat_map=True,
        init_cfg=dict(
            checkpoint='data/pretrained/videomae-s_k400-1600e.pth')),
    neck=dict(
        _delete_=True,
        type='LLMBlockNeck',
        in_channels=384,
        out_type='avg_featmap',
        block={{_base_.llm_block}}),
    cls_head=dict(num_classes=400),
    data_preprocessor=dict(
        blending=dict(augments=[
            dict(type='MixupBlending', alpha=0.8, num_classes=400),
            dict(type='CutmixBlending', alpha=1., num_classes=400)
        ])))
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-3,
        by_epoch=True,
        begin=0,
        end=5,
        convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        T_max=145,
        eta_min_ratio=1e-3,
        by_epoch=True,
        begin=5,
        end=150,
        convert_to_iter_based=True)
]
train_cfg = dict(max_epochs=150)
