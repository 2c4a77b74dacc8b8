"""Repairs of released versions of the frameworks that lm4ve extends.

A repair is a function whose docstring names the defect, the versions that have it, where it
is reported upstream, and when it may go. A test fails once a repair is no longer needed.
Nothing is imported for a repair: it runs right after the import of the module that it is about.
``mmengine_*.py`` and ``transformers_*.py`` override private methods, or read private
attributes, for the hooks of :mod:`lm4ve.runner` and for :mod:`lm4ve.necks`.
"""

from lm4ve.compat import for_mmaction, for_mmcv, for_mmengine, for_mmpretrain, mmaction_single_map  # noqa: F401
from lm4ve.compat.repairs import REPAIRS, apply

#: Module -> the files that override private methods of one of its classes, or read its
#: private attributes.
OVERRIDES = {
    'mmengine.hooks.checkpoint_hook': 'mmengine_checkpoint_order',
    'mmengine.hooks.ema_hook': 'mmengine_ema_swap',
    'mmengine.runner.runner': 'mmengine_load_reason',
    'transformers.trainer': 'transformers_trainer_names',
}

__all__ = ['OVERRIDES', 'REPAIRS', 'apply']
