"""Give mmcv's stochastic depth rates that torch.compile does not take for tensors."""

from collections.abc import Callable
from typing import Any

import numpy as np
import wrapt


def plain_rates(drop_path: Any) -> None:
    """Store the rate of each ``DropPath`` as a float of Python.

    Broken in mmcv 2.1.0 (not reported upstream): mmpretrain's ViT and others
    take the rates of their layers from ``np.linspace``. torch.compile treats NumPy's
    scalars as tensors, so that ``if drop_prob == 0.`` splits the graph twice in each
    layer. The values and the draws are the same. May go once ``DropPath`` converts its
    rate.
    """
    wrapt.wrap_function_wrapper(drop_path, '__init__', _init_with_plain_rate)


def _init_with_plain_rate(
    init: Callable[..., None], module: Any, args: Any, kwargs: Any
) -> None:
    """Construct a ``DropPath`` by mmcv's ``init``, and convert its rate."""
    init(*args, **kwargs)
    if isinstance(module.drop_prob, np.floating):
        module.drop_prob = float(module.drop_prob)
