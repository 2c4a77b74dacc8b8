"""A norm of mmaction2's ViT that nothing uses stops DDP."""

from collections.abc import Callable
from typing import Any

import wrapt


def drop_unused_norm(encoder: Any) -> None:
    """VideoMAE's ViT keeps a norm that it does not use when it gives its map.

    Broken in mmaction2 1.2.0 (not reported upstream): with ``return_feat_map=True`` it
    returns before ``fc_norm``, whose missing gradient stops DDP at the second
    iteration. May go once the class builds ``fc_norm`` only where it is used.
    """
    wrapt.wrap_function_wrapper(encoder, '__init__', _init)


def _init(init: Callable[..., None], model: Any, args: Any, kwargs: Any) -> None:
    init(*args, **kwargs)
    if model.return_feat_map and getattr(model, 'fc_norm', None) is not None:
        model.fc_norm = None
