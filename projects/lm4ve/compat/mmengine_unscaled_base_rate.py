"""Let MMEngine scale the rate that it logs as the base, with those that it trains by."""

from collections.abc import Callable
from typing import Any

import wrapt
from mmengine.optim import OptimWrapperDict


def scale_base_rate(runner_class: Any) -> None:
    """Let ``auto_scale_lr`` scale ``base_lr`` too, which logs and our console show.

    Broken in MMEngine 0.10.7 (no upstream issue): the rates of all groups of parameters are
    scaled by the batch, and the base rate beside them is not. May go once
    ``Runner.scale_lr`` changes ``base_param_settings``.
    """
    wrapt.wrap_function_wrapper(runner_class, 'scale_lr', _scale_base_too)


def _scale_base_too(
    scale: Callable[..., None], runner: Any, args: Any, kwargs: Any
) -> None:
    """Scale by MMEngine's ``scale``, and the base by the same factor."""
    wrapper = kwargs.get('optim_wrapper', args[0] if args else None)
    wrappers = [wrapper]
    if isinstance(wrapper, OptimWrapperDict):
        wrappers = list(wrapper.values())
    rates_before = [_highest_rate(each) for each in wrappers]
    scale(*args, **kwargs)
    for each, rate_before in zip(wrappers, rates_before, strict=True):
        base = each.base_param_settings
        if base is None or rate_before == 0:
            continue
        factor = _highest_rate(each) / rate_before
        base['lr'] *= factor


def _highest_rate(wrapper: Any) -> float:
    """Return the highest rate of an optimizer's groups: others may be 0."""
    return float(max(group['lr'] for group in wrapper.optimizer.param_groups))
