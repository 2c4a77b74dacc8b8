"""MMEngine's EMA hook always evaluates the average and stores it as the weights.

True of MMEngine 0.10.7 (mmengine issue 1678, open, asks for files of their own): there
is no option that keeps an average beside the weights. mmpretrain's hook can evaluate
the raw weights, but still stores the average as ``state_dict``, so that a test of the
file scores other weights than training reported. Both exchanges are private methods,
which are overridden here and nowhere else. May go once MMEngine's hook can leave the
weights where they are.
"""

import inspect
from types import ModuleType
from typing import Any

from mmengine.hooks import EMAHook


def is_needed(ema_hook: ModuleType) -> bool:
    """Return whether MMEngine's hook still has no option against the exchange.

    Args:
        ema_hook (ModuleType): ``mmengine.hooks.ema_hook``.
    """
    return set(inspect.signature(ema_hook.EMAHook).parameters) == {
        'ema_type',
        'strict_load',
        'begin_iter',
        'begin_epoch',
        'kwargs',
    }


class UnswappedEMAHook(EMAHook):
    """MMEngine's ``EMAHook`` that never exchanges the average and the weights."""

    def _swap_ema_state_dict(self, checkpoint: dict[str, Any]) -> None:
        pass

    def _swap_ema_parameters(self) -> None:
        pass
