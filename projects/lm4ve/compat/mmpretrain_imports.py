"""mmpretrain imports models that need other packages, wherever these are installed."""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

_MMDET_LAYER = 'mmpretrain.models.utils.res_layer_extra_norm'


def import_without_extras(dependency: Any) -> None:
    """mmpretrain imports models of other packages with its own, wherever these are installed.

    True of mmpretrain 1.2.0 (not reported upstream). Where pycocotools is installed, as
    mmdetection installs it, BLIP imports functions that transformers >= 4.48 lacks, and
    ``import mmpretrain.models`` ends in "TypeError: NoneType takes no arguments";
    mmpretrain's own switch for machines without pycocotools leaves those models out.
    For one layer mmpretrain imports all of mmdetection, in a second;
    :func:`import_layer_of_mmdet` adds the layer when mmdetection is imported. May go
    once BLIP imports and the layer is imported where it is used.
    """
    dependency.WITH_MULTIMODAL = False
    if 'mmdet' not in sys.modules:
        stand_in: Any = ModuleType(_MMDET_LAYER)
        # mmpretrain's own value on machines without mmdetection.
        stand_in.ResLayerExtraNorm = None
        sys.modules[_MMDET_LAYER] = stand_in


def import_layer_of_mmdet(_: Any) -> None:
    """mmpretrain 1.2.0 makes its layer of mmdetection only if that was there at its own import.

    The layer that :func:`import_without_extras` left out is put in its place. May go
    with that.
    """
    layer = sys.modules.get(_MMDET_LAYER)
    is_stand_in = layer is not None and layer.__spec__ is None
    if not is_stand_in:
        return
    del sys.modules[_MMDET_LAYER]
    utils: Any = sys.modules.get('mmpretrain.models.utils')
    if utils is not None:
        utils.ResLayerExtraNorm = import_module(_MMDET_LAYER).ResLayerExtraNorm
