"""Refuse our neck in the two classifiers of mmpretrain that would not build it."""

from collections.abc import Callable
from typing import Any

import wrapt

from lm4ve.errors import UserError


def refuse_unbuilt_neck(classifier: Any) -> None:
    """Let ``HuggingFaceClassifier`` and ``TimmClassifier`` refuse a ``neck`` of ours.

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
    """Construct a classifier by mmpretrain's ``init``, unless its config has our neck.

    Raises:
        UserError: It has one.
    """
    # The type's name, with or without a scope, or the class, also in a list of necks.
    if 'LLMBlockNeck' in repr(kwargs.get('neck')):
        raise UserError(
            f'model.neck: {type(model).__name__} builds no neck. Fix: lm4ve.wrap.'
        )
    init(*args, **kwargs)
