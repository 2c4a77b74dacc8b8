"""Image classification's own things: checked folders, ImageNet variants, their metrics.

All of them extend mmpretrain's classes. Without mmpretrain (or with one that
cannot be imported, which :mod:`lm4ve.hosts` reports) this package is empty, so
that the registries can still be searched.
"""
try:
    import mmpretrain.datasets
    import mmpretrain.evaluation  # noqa: F401
except (ImportError, AssertionError, AttributeError):
    __all__ = []
else:
    from lm4ve.image.checked import CheckedImageFolder, CheckedImageNet, CheckedMixin
    from lm4ve.image.metrics import CorruptionAccuracy, SubsetAccuracy
    from lm4ve.image.variants import ImageNetC, ImageNetVariant

    __all__ = [
        'CheckedImageFolder', 'CheckedImageNet', 'CheckedMixin',
        'CorruptionAccuracy', 'ImageNetC', 'ImageNetVariant', 'SubsetAccuracy'
    ]
