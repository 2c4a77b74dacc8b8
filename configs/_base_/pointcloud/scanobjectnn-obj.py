# ScanObjectNN's OBJ_ONLY: objects without background.
_base_ = './scanobjectnn.py'

train_dataloader = dict(dataset=dict(variant='objectonly'))
val_dataloader = dict(dataset=dict(variant='objectonly'))
test_dataloader = val_dataloader
