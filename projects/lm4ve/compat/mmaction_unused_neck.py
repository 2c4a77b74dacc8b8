"""Some recognizers of mmaction2 build ``neck=`` and never call it.

Broken in mmaction2 1.2.0 (not reported upstream): ``RecognizerGCN``, ``RecognizerAudio``
and ``MMRecognizer3D`` take a neck from ``BaseRecognizer`` and go from the backbone to the
head, so that a block in it would do nothing. May go once they call it or refuse it.
"""

import importlib
import inspect
from types import ModuleType

import wrapt

from lm4ve.errors import UserError

_HOSTS = ('RecognizerAudio', 'RecognizerGCN', 'MMRecognizer3D')


def is_needed(base: ModuleType) -> bool:
    """Return whether one of these recognizers does not mention its neck."""
    recognizers = importlib.import_module('mmaction.models.recognizers')
    return any('neck' not in inspect.getsource(getattr(recognizers, n)) for n in _HOSTS)


def repair(base: ModuleType) -> None:
    """Refuse our neck in a recognizer that would not call it.

    Args:
        base (ModuleType): ``mmaction.models.recognizers.base``.
    """

    @wrapt.patch_function_wrapper(base, 'BaseRecognizer.__init__')
    def _(original, model, args, kwargs) -> None:
        original(*args, **kwargs)
        host = type(model).extract_feat.__qualname__.partition('.')[0]
        parts = model.neck.modules() if host in _HOSTS and model.with_neck else ()
        if any(type(m).__name__ == 'LLMBlockNeck' for m in parts):
            raise UserError(
                f"model.neck: mmaction2's {host} builds a neck and never calls it, so that the "
                "block would do nothing. Fix: model.backbone=dict(type='LLMBlockInsert', "
                'backbone=..., after=..., neck=...) and no model.neck.'
            )
