"""What mmaction2 needs, at the price of a plain ``import lm4ve``: its registries.

Its models take most of a second to import, which users of other tasks should
not pay. The two repairs that must come before that import are made here; the
rest waits in :mod:`lm4ve.hosts.mmaction_models`, which mmaction2's registry
imports along with its own models when a config first asks it for a class.
"""
import importlib

from mmaction.registry import MODELS

from lm4ve.hosts.mmaction_drn import stand_in_for_drn
from lm4ve.hosts.mmaction_multimodal import leave_out_multimodal

_MODELS = 'lm4ve.hosts.mmaction_models'


def _import_with_models() -> None:
    locations = getattr(MODELS, '_locations', None)
    if locations is None or getattr(MODELS, '_imported', True):
        # They are there already, or this MMEngine keeps no such list.
        importlib.import_module(_MODELS)
    elif _MODELS not in locations:
        locations.append(_MODELS)


stand_in_for_drn()
leave_out_multimodal()
_import_with_models()
