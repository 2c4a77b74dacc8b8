"""Remove a norm of mmaction2's ViT that has no gradient, which stops DDP."""

from collections.abc import Callable
from typing import Any

import wrapt


def drop_unused_norm(encoder: Any) -> None:
    """Remove ``fc_norm`` from each VideoMAE ViT that is built to return its feature map.

    Broken in mmaction2 1.2.0 (not reported upstream): with ``return_feat_map=True`` the
    forward pass returns before ``fc_norm``, whose missing gradient stops DDP at the
    second iteration. May go once the class builds ``fc_norm`` only where it is used.
    """
    wrapt.wrap_function_wrapper(encoder, '__init__', _init_without_unused_norm)


def _init_without_unused_norm(
    init: Callable[..., None], model: Any, args: Any, kwargs: Any
) -> None:
    """Construct a ViT by mmaction2's ``init``, and remove the norm that it will not use."""
    init(*args, **kwargs)
    if model.return_feat_map and getattr(model, 'fc_norm', None) is not None:
        model.fc_norm = None
