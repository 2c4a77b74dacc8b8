# The embedded rooms with stored objects (center, size, mean color) in the place of
# points, as from a perfect detector: what is left to learn is to answer.
_base_ = './sqa3d-demo_none_rooms.py'

model = dict(
    object_encoder=dict(_delete_=True, type='lm4ve.StoredObjects', in_channels=9)
)
optim_wrapper = dict(
    optimizer=dict(lr=1.5e-3),
    paramwise_cfg=dict(_delete_=True),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, begin=0, end=100, by_epoch=False),
    dict(type='CosineAnnealingLR', T_max=3500, begin=100, end=3600, by_epoch=False),
]
train_cfg = dict(max_epochs=3, val_interval=3)
_steps = [dict(type='lm4ve.LoadObjects'), dict(type='lm4ve.PackScene')]
train_dataloader = dict(dataset=dict(pipeline=_steps))
val_dataloader = dict(dataset=dict(pipeline=_steps))
test_dataloader = dict(dataset=dict(pipeline=_steps))
