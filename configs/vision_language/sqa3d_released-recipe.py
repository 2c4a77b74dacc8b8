# SQA3D's ScanQA baseline as its release trains it: 256 wide, Adam, batch 16, 50 epochs at one
# rate (its steps, at epochs 100 and 200, are never reached). It also lowers the momentum of
# batch norm, from 0.5 by half every 20 epochs; here it is 0.1 throughout.
_base_ = [
    '../_base_/vision_language/scanqa.py',
    '../_base_/vision_language/scannet-sqa3d.py',
    '../_base_/default_runtime.py',
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
