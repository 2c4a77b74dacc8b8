"""Let MMEngine average weights once an update, where gradients are added up."""

from collections.abc import Callable
from typing import Any

import wrapt

from lm4ve.compat.mmengine_lost_gradients import ended_update


def average_after_updates(hook_class: Any) -> None:
    """Let an ``EMAHook`` change its average only after the optimizer has changed the weights.

    Broken in MMEngine 0.10.7 (no upstream issue): the hook averages after each iteration,
    also those whose gradients are only added up. With ``accumulative_counts=4`` it takes
    in the same weights four times and forgets four times as fast as ``momentum`` says.
    May go once the hook asks the optimizer's wrapper.
    """
    wrapt.wrap_function_wrapper(hook_class, 'after_train_iter', _average_after_update)


def _average_after_update(
    average: Callable[..., None], hook: Any, args: Any, kwargs: Any
) -> None:
    """Average by MMEngine's ``average`` if the optimizer has just acted."""
    runner = kwargs.get('runner', args[0] if args else None)
    if ended_update(runner):
        average(*args, **kwargs)
