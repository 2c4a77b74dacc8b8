"""Repair of mmcv-lite 2.1.0."""

import sys
from importlib import import_module, util
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from lm4ve.compat.repairs import repairs
from lm4ve.errors import UserError

_NAME = 'mmcv._ext'


def _lacks_operators(_: ModuleType) -> bool:
    found = sys.modules.get(_NAME)
    return isinstance(found, _StandIn) or (found is None and util.find_spec(_NAME) is None)


@repairs('mmdet', _lacks_operators)
@repairs('mmseg', _lacks_operators)
def import_without_operators(host: ModuleType) -> None:
    """mmsegmentation and mmdetection do not import beside mmcv-lite.

    Both import ``mmcv.ops``, whose modules need the compiled ``mmcv._ext`` at import, although
    most models call none of its operators (mmsegmentation 1.2.2, mmdetection 3.3.0, mmcv-lite
    2.1.0; known upstream, a full mmcv is advised). A stand-in has torchvision's non-maximum
    suppression; any other operator raises when it is called. May go once both import.
    """
    if _NAME in sys.modules or not _lacks_operators(host):
        return
    stand_in = _StandIn(_NAME)
    stand_in.__spec__ = ModuleSpec(_NAME, None)
    sys.modules[_NAME] = stand_in
    import_module('mmcv')._ext = stand_in  # type: ignore[attr-defined]
    # An earlier import went without the class, which mmdetection's layers need.
    parts: Any = import_module('mmcv.cnn.bricks.transformer')
    if not hasattr(parts, 'MultiScaleDeformableAttention'):
        module: Any = import_module('mmcv.ops.multi_scale_deform_attn')
        parts.MultiScaleDeformableAttention = module.MultiScaleDeformableAttention


class _StandIn(ModuleType):
    """A module that has every operator, none of which runs except :meth:`nms`."""

    def __getattr__(self, name: str):
        if name.startswith('__'):
            raise AttributeError(name)

        def missing(*args, **kwargs):
            raise UserError(f"mmcv-lite lacks the operator '{name}'. Fix: mmcv>=2.0.0,<2.2.")

        return missing

    @staticmethod
    def nms(boxes, scores, iou_threshold: float, offset: int = 0):
        """Suppress boxes ``[N, 4]`` by torchvision's operator; returns the kept indices.

        Raises:
            UserError: The offset is 1, MMDetection 1's way to measure boxes.
        """
        from torchvision.ops import nms

        if offset:
            raise UserError('nms.offset=1 needs a full mmcv. Fix: nms.offset=0.')
        return nms(boxes, scores, float(iou_threshold))
