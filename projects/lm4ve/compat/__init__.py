"""Repairs of released versions of the frameworks that lm4ve extends.

A repair is a function whose docstring names the defect, the versions that have it, where it
is reported upstream, and when it may go. A test fails once a repair is no longer needed.
Nothing is imported for a repair: it runs right after the import of the module that it is about.
``mmengine_*.py`` and ``transformers_*.py`` override private methods, or read private
attributes, for the hooks of :mod:`lm4ve.runner` and for :mod:`lm4ve.necks`.
"""

import importlib

import wrapt

from lm4ve.compat import for_mmcv, for_mmengine, for_mmpretrain  # noqa: F401
from lm4ve.compat.repairs import REPAIRS, apply


def _repair_mmaction(_: object) -> None:
    # Its package imports no part of it, so that these are in time.
    known = len(REPAIRS)
    for name in ('for_mmaction', 'mmaction_single_map'):
        importlib.import_module(f'lm4ve.compat.{name}')
    apply(known)


apply()
wrapt.register_post_import_hook(_repair_mmaction, 'mmaction')

#: Module -> the files that override private methods of one of its classes, or read its
#: private attributes.
OVERRIDES = {
    'mmengine.hooks.checkpoint_hook': 'mmengine_checkpoint_order',
    'mmengine.hooks.ema_hook': 'mmengine_ema_swap',
    'mmengine.runner.runner': 'mmengine_load_reason',
    'transformers.trainer': 'transformers_trainer_names',
}

__all__ = ['OVERRIDES', 'REPAIRS']
