"""Stand in for mmcv's compiled operators, which mmcv-lite lacks and other libraries import."""

import sys
from importlib import import_module, util
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from lm4ve.errors import UserError

_OPERATORS = 'mmcv._ext'


def import_without_operators(host: ModuleType) -> None:
    """Let mmsegmentation and mmdetection be imported beside mmcv-lite.

    A module takes the place of the compiled ``mmcv._ext``. It has torchvision's
    non-maximum suppression; any other operator raises an error when it is called.
    Nothing happens where the compiled module is installed.

    Broken in mmsegmentation 1.2.2 and mmdetection 3.3.0 with mmcv-lite 2.1.0 (known
    upstream, where a full mmcv is advised): both import ``mmcv.ops``, whose modules need
    ``mmcv._ext`` at import, although most models call none of its operators. May go once
    both can be imported without it.

    Args:
        host (ModuleType): Not used: the library that was imported.
    """
    if _OPERATORS in sys.modules or util.find_spec(_OPERATORS) is not None:
        return
    stand_in: Any = ModuleType(_OPERATORS)
    stand_in.__spec__ = ModuleSpec(_OPERATORS, None)
    stand_in.__getattr__ = _missing_operator  # called for any other name
    stand_in.nms = _nms
    mmcv: Any = import_module('mmcv')
    mmcv._ext = stand_in
    sys.modules[_OPERATORS] = stand_in
    # mmcv leaves this class out when it is imported without the operators; mmdetection's
    # layers need it.
    transformer: Any = import_module('mmcv.cnn.bricks.transformer')
    if not hasattr(transformer, 'MultiScaleDeformableAttention'):
        attention: Any = import_module('mmcv.ops.multi_scale_deform_attn')
        transformer.MultiScaleDeformableAttention = (
            attention.MultiScaleDeformableAttention
        )


def _missing_operator(name: str) -> Any:
    """Return a function that raises an error when it is called, in place of an operator.

    It is the stand-in module's ``__getattr__``, so that ``mmcv.ops`` finds each name at
    import.

    Raises:
        AttributeError: The name is Python's own, such as ``__path__``, which modules may
            lack.
    """
    if name.startswith('__'):
        raise AttributeError(name)

    def missing(*args: Any, **kwargs: Any) -> None:
        raise UserError(
            f"mmcv-lite lacks the operator '{name}'. Fix: mmcv>=2.0.0,<2.2."
        )

    return missing


def _nms(boxes: Any, scores: Any, iou_threshold: float, offset: int = 0) -> Any:
    """Suppress overlapping boxes by torchvision's operator instead of mmcv's.

    Args:
        boxes (Tensor): Corners, float ``[N, 4]``.
        scores (Tensor): Float ``[N]``.
        iou_threshold (float): A box is suppressed if it overlaps a better one by more.
        offset (int): mmcv's: 1 counts the last pixel of a box, as MMDetection 1 did.

    Returns:
        Tensor: Indices of the boxes that are kept, int64 ``[K]``, by falling score.

    Raises:
        UserError: ``offset`` is not 0.
    """
    from torchvision.ops import nms

    if offset:
        raise UserError('nms.offset=1 needs a full mmcv. Fix: nms.offset=0.')
    return nms(boxes, scores, float(iou_threshold))
