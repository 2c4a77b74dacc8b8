"""Refuse a neck in the two classifiers of mmpretrain that would not build it."""

from collections.abc import Callable
from typing import Any

import wrapt

from lm4ve.errors import UserError


def refuse_unbuilt_neck(classifier: Any) -> None:
    """Let ``HuggingFaceClassifier`` and ``TimmClassifier`` refuse the argument ``neck``.

    Broken in mmpretrain 1.2.0 (not reported upstream): both pass unknown arguments on.
    ``HuggingFaceClassifier`` passes them to ``AutoConfig.from_pretrained``, which
    ignores them, so that a model with ``neck=`` trains without it; ``TimmClassifier``
    passes them to timm, which raises a ``TypeError``. May go once the classes refuse a
    neck.
    """
    wrapt.wrap_function_wrapper(classifier, '__init__', _init_without_neck)


def _init_without_neck(
    init: Callable[..., None], model: Any, args: Any, kwargs: Any
) -> None:
    """Construct a classifier by mmpretrain's ``init``, unless its config has a neck.

    Raises:
        UserError: It has one.
    """
    if kwargs.get('neck') is not None:
        raise UserError(
            f'model.neck: {type(model).__name__} builds no neck. Fix: lm4ve.wrap.'
        )
    init(*args, **kwargs)
