"""Action recognition's own things: checked video lists, augmentation, the demo's data.

All of them extend mmaction2's classes. Without mmaction2 (or with one that
cannot be imported, which :mod:`lm4ve.hosts` reports) this package is empty, so
that the registries can still be searched.
"""
import importlib.util

from mmengine.logging import print_log

__all__ = []
if importlib.util.find_spec('mmaction') is not None:
    try:
        import av  # noqa: F401
        import mmaction.datasets  # noqa: F401

        import lm4ve.hosts.mmaction_models  # noqa: F401
    except (ImportError, AssertionError, AttributeError) as e:
        print_log(
            f'lm4ve: mmaction2 is installed, but video data is not available: '
            f'{e}. Fix: pip install -r requirements/video.txt',
            logger='current',
            level=30)
    else:
        from lm4ve.video.checked import CheckedRepeatAugDataset, CheckedVideoDataset
        from lm4ve.video.demo import MovingDigitsDataset
        from lm4ve.video.transforms import ClipRandAugment

        __all__ = [
            'CheckedRepeatAugDataset', 'CheckedVideoDataset',
            'ClipRandAugment', 'MovingDigitsDataset'
        ]
