"""An EMA copy that is kept but not evaluated, as DeiT's recipe has it.

MMEngine's EMA hook evaluates the average and stores it as ``state_dict``;
mmpretrain's can evaluate the raw weights, but still stores the average there,
so that a test of the file would score other weights than training reported.
"""

from mmengine.hooks import EMAHook

from lm4ve.registry import HOOKS


@HOOKS.register_module()
class KeptEMAHook(EMAHook):
    """Keep an exponential moving average beside the weights.

    Validation, testing and a checkpoint's ``state_dict`` use the raw weights;
    the average is in ``ema_state_dict`` (under ``module.``). Frozen blocks are
    shared with the average, not copied. Takes MMEngine's arguments.
    """

    def _swap_ema_state_dict(self, checkpoint) -> None:
        pass

    def _swap_ema_parameters(self) -> None:
        pass
