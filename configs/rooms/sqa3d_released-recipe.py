# SQA3D's ScanQA baseline as its release trains it: 256 wide, Adam, batch 16, 50 epochs of
# 1,664 steps at one rate (its steps, at epochs 100 and 200, are never reached), with the
# task of poses, which only auxi.sh switches on; without it, as full.sh:
#   --cfg-options model.pose_head=None
_base_ = [
    '../_base_/rooms/scanqa.py',
    '../_base_/rooms/scannet-sqa3d.py',
    '../_base_/rooms/runtime.py',
]

# The release normalizes colors in place, on arrays that a loader process keeps: of all
# samples but a scene's first one, about 92 %, it does so at least twice, which leaves
# them nearly constant. Here all samples are like these.
model = dict(data_preprocessor=dict(color_passes=2))
train_dataloader = dict(batch_size=16)
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='Adam', lr=5e-4, weight_decay=1e-5),
    clip_grad=dict(type='value', clip_value=1.0),
)
param_scheduler = []
# The best checkpoint is sought every 1,000 steps.
train_cfg = dict(by_epoch=False, max_iters=83200, val_interval=1000)
log_processor = dict(by_epoch=False)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=1000))
# Half of it every 20 epochs; the release's schedule begins an epoch late.
custom_hooks = [
    dict(
        type='lm4ve.BatchNormMomentumHook',
        momentum=0.5,
        milestones=[34944, 68224],
        gamma=0.5,
    )
]
auto_scale_lr = dict(base_batch_size=16)
