"""An EMA copy that is kept but not evaluated, as in DeiT's recipe."""

from lm4ve.compat.mmengine_swapped_average import UnswappedEMAHook
from lm4ve.registry import HOOKS


@HOOKS.register_module()
class KeptEMAHook(UnswappedEMAHook):
    """Keep an exponential moving average beside the weights.

    Validation, testing and a checkpoint's ``state_dict`` use the raw weights;
    the average is in ``ema_state_dict`` (under ``module.``). Frozen blocks are
    shared with the average, not copied. Takes MMEngine's arguments.
    """
