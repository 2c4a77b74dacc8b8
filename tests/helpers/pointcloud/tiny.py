"""A tiny classifier of point clouds."""

from mmengine.registry import MODELS

TINY = dict(embed_dims=12, depth=2, num_heads=2, num_groups=6, group_size=5)
TINY |= dict(encoder_dims=8, encoder_channels=(4, 6, 8))


def build(kind='PointBERT', neck=None, **changes):
    sizes = dict(TINY, **changes)
    if kind == 'PointMAE':
        sizes.pop('encoder_dims')
    backbone = dict(type=f'lm4ve.{kind}', final_norm=neck is None, **sizes)
    head = dict(type='lm4ve.PointClsHead', in_channels=12, num_classes=5, hidden=(7,))
    kind = 'lm4ve.PointCloudClassifier'
    return MODELS.build(dict(type=kind, backbone=backbone, neck=neck, head=head))
