"""Two classifiers of mmpretrain build no neck."""

from collections.abc import Callable
from typing import Any

import wrapt

from lm4ve.errors import UserError


def refuse_unbuilt_neck(classifier: Any) -> None:
    """mmpretrain's ``HuggingFaceClassifier`` and ``TimmClassifier`` build no neck.

    Broken in mmpretrain 1.2.0 (not reported upstream): unknown arguments go to
    ``AutoConfig.from_pretrained``, which ignores them, so that a model with ``neck=``
    trains without it, or to timm, which raises a ``TypeError``. May go once the classes
    refuse a neck.
    """
    wrapt.wrap_function_wrapper(classifier, '__init__', _init)


def _init(init: Callable[..., None], model: Any, args: Any, kwargs: Any) -> None:
    if kwargs.get('neck') is not None:
        raise UserError(
            f'model.neck: {type(model).__name__} builds no neck. Fix: lm4ve.wrap.'
        )
    init(*args, **kwargs)
