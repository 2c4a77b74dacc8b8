"""mmsegmentation and mmdetection do not import beside mmcv-lite.

Both import ``mmcv.ops``, whose modules ask for the compiled ``mmcv._ext`` when they are
imported, although most models call none of its operators (mmsegmentation 1.2.2, mmdetection
3.3.0, mmcv-lite 2.1.0; known upstream, a full mmcv is advised). A stand-in lets them import:
non-maximum suppression is torchvision's, and any other operator says what is missing when it
is called. May go once both import beside mmcv-lite.
"""

import sys
from importlib import import_module, util
from importlib.machinery import ModuleSpec
from types import ModuleType

from lm4ve.errors import UserError

_NAME = 'mmcv._ext'


def is_needed(_: ModuleType) -> bool:
    """Return whether mmcv has no compiled operators."""
    found = sys.modules.get(_NAME)
    return isinstance(found, _StandIn) or (found is None and util.find_spec(_NAME) is None)


def repair(host: ModuleType) -> None:
    """Put the stand-in where ``mmcv.ops`` looks for compiled operators.

    Args:
        host (ModuleType): ``mmseg`` or ``mmdet``, which has just been imported.
    """
    if _NAME in sys.modules or not is_needed(host):
        return
    stand_in = _StandIn(_NAME)
    stand_in.__spec__ = ModuleSpec(_NAME, None)
    sys.modules[_NAME] = stand_in
    import_module('mmcv')._ext = stand_in
    # Whoever was imported before goes without the class, and mmdetection's layers ask for it.
    parts = import_module('mmcv.cnn.bricks.transformer')
    if not hasattr(parts, 'MultiScaleDeformableAttention'):
        module = import_module('mmcv.ops.multi_scale_deform_attn')
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
