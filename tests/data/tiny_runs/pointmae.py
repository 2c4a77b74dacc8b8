# Point-MAE without a block.
_base_ = './pointbert.py'

model = dict(
    backbone=dict(
        _delete_=True, type='lm4ve.PointMAE', embed_dims=16, depth=1, num_heads=2, num_groups=6,
        group_size=8, encoder_channels=(4, 6, 8), mlp_ratio=2.0, drop_path_rate=0.0,
        init_cfg=None),
    neck=None,
    head=dict(dropout=0.0, label_smoothing=0.0))
