# SQA3D's ScanQA baseline as its release trains it: 256 wide, Adam, batch 16, 50 epochs
# at one rate (its steps, at epochs 100 and 200, are never reached), with the task of
# poses, which only auxi.sh switches on; without it, as full.sh:
#   --cfg-options model.pose_head=None
# Not as in the release: the momentum of batch norm is 0.1 throughout, there 0.5 and half
# of it every 20 epochs; the best checkpoint is sought after each epoch of 1,664 steps,
# there every 1,000; and colors are true, there nearly constant in all but the first
# sample of a scene, since it normalizes them in place on arrays that it keeps.
# model.data_preprocessor.color_passes=2 repeats that, for its weights.
_base_ = [
    '../_base_/rooms/scanqa.py',
    '../_base_/rooms/scannet-sqa3d.py',
    '../_base_/rooms/runtime.py',
]

train_dataloader = dict(batch_size=16)
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='Adam', lr=5e-4, weight_decay=1e-5),
    clip_grad=dict(type='value', clip_value=1.0),
)
param_scheduler = []
train_cfg = dict(by_epoch=True, max_epochs=50, val_interval=1)
auto_scale_lr = dict(base_batch_size=16)
