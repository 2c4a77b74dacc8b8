"""Repairs of hosts, registered with :mod:`lm4ve.compat`, that need a neck."""

from collections.abc import Callable
from typing import Any

import wrapt

from lm4ve.necks.head_fit import check_head
from lm4ve.necks.joining import join


def load_plain_encoders(host: Any) -> None:
    """A host drops the final norm of a plain encoder's checkpoint.

    True of mmpretrain 1.2.0 and mmaction2 1.2.0 (no upstream issue): the neck takes no
    part in its host's loading. May go once a host hands the tensors that its backbone
    lacks to its neck.
    """
    wrapt.wrap_function_wrapper(host, '__init__', _init)


def _init(init: Callable[..., None], model: Any, args: Any, kwargs: Any) -> None:
    """Build a host's model, check its head, and let its neck take over the final norm."""
    init(*args, **kwargs)
    join(model)
    check_head(model)
