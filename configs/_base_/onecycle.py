# AdamW and one cycle of the learning rate: what the demos' schedules share.
optim_wrapper = dict(optimizer=dict(type='AdamW'))
param_scheduler = dict(type='OneCycleLR', by_epoch=True, convert_to_iter_based=True)
train_cfg = dict(by_epoch=True)
val_cfg = dict()
test_cfg = dict()
