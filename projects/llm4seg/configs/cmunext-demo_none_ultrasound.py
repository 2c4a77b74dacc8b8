# A small CMUNeXt on made-up ultrasound pictures: minutes on a CPU, nothing is
# downloaded.
_base_ = ['./_base_/cmunext.py', './_base_/ultrasound.py']

dims = [8, 16, 32, 64, 128]
model = dict(
    data_preprocessor=dict(size=(64, 64)),
    backbone=dict(dims=dims, depths=[1, 1, 1, 1, 1], kernels=[3, 3, 7, 7, 9]),
    decode_head=dict(in_channels=dims),
)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=2e-3, weight_decay=0.05)
)
param_scheduler = dict(
    _delete_=True,
    type='OneCycleLR',
    eta_max=2e-3,
    total_steps=20,
    by_epoch=True,
    convert_to_iter_based=True,
)
train_cfg = dict(max_epochs=20, val_interval=5)
