# Point-MAE without a block.
_base_ = './pointbert.py'

vit = dict(_base_.vit, depth=1)
model = dict(
    backbone=dict(_delete_=True, type='lm4ve.PointMAE', **vit, **_base_.groups),
    neck=None,
    head=dict(dropout=0.0, label_smoothing=0.0),
)
