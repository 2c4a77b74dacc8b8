"""An EMA copy that is kept but not evaluated, as in DeiT's recipe."""

from typing import Any

from mmengine.model import ExponentialMovingAverage

from lm4ve.compat.mmengine_swapped_average import UnswappedEMAHook
from lm4ve.registry import HOOKS


@HOOKS.register_module()
class KeptEMAHook(UnswappedEMAHook):
    """Keep an exponential moving average beside the weights.

    Validation, testing and a checkpoint's ``state_dict`` use the raw weights;
    the average is in ``ema_state_dict`` (under ``module.``). It begins with the weights
    before the first step, as timm's does. Frozen blocks are shared with the average, not
    copied. Takes MMEngine's arguments.
    """

    def before_train(self, runner: Any) -> None:
        """Let the first update average, too; MMEngine's copies the weights after a step."""
        super().before_train(runner)
        average = self.ema_model
        if isinstance(average, ExponentialMovingAverage) and average.steps == 0:
            average.steps.fill_(1)
