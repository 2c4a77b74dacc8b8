"""Let mmpretrain be imported without the models that need pycocotools or mmdetection."""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

_MMDET_LAYER = 'mmpretrain.models.utils.res_layer_extra_norm'


def import_without_extras(dependency: Any) -> None:
    """Let ``import mmpretrain.models`` leave out multimodal models and a layer of mmdetection.

    mmpretrain's own switch for machines without pycocotools leaves out the multimodal
    models. An empty module takes the place of the one with the layer, unless mmdetection
    is imported already; :func:`import_layer_of_mmdet` adds the layer later.

    Broken in mmpretrain 1.2.0 (not reported upstream). Where pycocotools is installed,
    as mmdetection installs it, BLIP imports functions that transformers >= 4.48 lacks,
    and the import ends in "TypeError: NoneType takes no arguments". And where
    mmdetection is installed, all of it is imported for the one layer, which takes a
    second. May go once BLIP can be imported and the layer is imported where it is used.

    Args:
        dependency (ModuleType): ``mmpretrain.utils.dependency``, which has the switch.
    """
    dependency.WITH_MULTIMODAL = False
    if 'mmdet' not in sys.modules:
        stand_in: Any = ModuleType(_MMDET_LAYER)
        # mmpretrain's own value on machines without mmdetection.
        stand_in.ResLayerExtraNorm = None
        sys.modules[_MMDET_LAYER] = stand_in


def import_layer_of_mmdet(mmdet_models: Any) -> None:
    """Give mmpretrain its layer ``ResLayerExtraNorm``, once mmdetection is imported.

    The layer derives from one of mmdetection's. :func:`import_without_extras` put an
    empty module in the place of mmpretrain's module that defines it. Here that module is
    imported after all, and ``mmpretrain.models.utils`` gets the layer.

    mmpretrain 1.2.0 defines the layer only if mmdetection can be imported while
    mmpretrain is. This function may go when :func:`import_without_extras` goes.

    Args:
        mmdet_models (ModuleType): ``mmdet.models``. It is not used: functions that run
            after an import are called with the imported module.
    """
    layer = sys.modules.get(_MMDET_LAYER)
    # A module that Python imported has a spec.
    is_stand_in = layer is not None and layer.__spec__ is None
    if not is_stand_in:
        return
    del sys.modules[_MMDET_LAYER]
    utils: Any = sys.modules.get('mmpretrain.models.utils')
    if utils is not None:
        utils.ResLayerExtraNorm = import_module(_MMDET_LAYER).ResLayerExtraNorm
