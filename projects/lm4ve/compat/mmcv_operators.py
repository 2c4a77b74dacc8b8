"""mmcv-lite lacks the compiled operators, which other libraries import without need."""

import sys
from importlib import import_module, util
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from lm4ve.errors import UserError

_OPERATORS = 'mmcv._ext'


def import_without_operators(host: ModuleType) -> None:
    """mmsegmentation and mmdetection do not import beside mmcv-lite.

    Both import ``mmcv.ops``, whose modules need the compiled ``mmcv._ext`` at import,
    although most models call none of its operators (mmsegmentation 1.2.2, mmdetection
    3.3.0, mmcv-lite 2.1.0; known upstream, a full mmcv is advised). A stand-in has
    torchvision's non-maximum suppression; any other operator raises when it is called.
    May go once both import.
    """
    if _OPERATORS in sys.modules or util.find_spec(_OPERATORS) is not None:
        return
    stand_in: Any = ModuleType(_OPERATORS)
    stand_in.__spec__ = ModuleSpec(_OPERATORS, None)
    stand_in.__getattr__ = _operator
    stand_in.nms = _nms
    mmcv: Any = import_module('mmcv')
    mmcv._ext = stand_in
    sys.modules[_OPERATORS] = stand_in
    # An earlier import went without the class, which mmdetection's layers need.
    transformer: Any = import_module('mmcv.cnn.bricks.transformer')
    if not hasattr(transformer, 'MultiScaleDeformableAttention'):
        attention: Any = import_module('mmcv.ops.multi_scale_deform_attn')
        transformer.MultiScaleDeformableAttention = (
            attention.MultiScaleDeformableAttention
        )


def _operator(name: str) -> Any:
    """Return an operator that raises when it is called."""
    if name.startswith('__'):
        raise AttributeError(name)

    def missing(*args: Any, **kwargs: Any) -> None:
        raise UserError(
            f"mmcv-lite lacks the operator '{name}'. Fix: mmcv>=2.0.0,<2.2."
        )

    return missing


def _nms(boxes: Any, scores: Any, iou_threshold: float, offset: int = 0) -> Any:
    """Suppress boxes ``[N, 4]`` by torchvision's operator; returns the kept indices."""
    from torchvision.ops import nms

    if offset:  # MMDetection 1's way to measure boxes
        raise UserError('nms.offset=1 needs a full mmcv. Fix: nms.offset=0.')
    return nms(boxes, scores, float(iou_threshold))
