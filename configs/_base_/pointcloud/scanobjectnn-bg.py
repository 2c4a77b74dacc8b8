# ScanObjectNN's OBJ_BG: objects with what lies behind them.
_base_ = './scanobjectnn.py'

train_dataloader = dict(dataset=dict(variant='objectbg'))
val_dataloader = dict(dataset=dict(variant='objectbg'))
test_dataloader = val_dataloader
