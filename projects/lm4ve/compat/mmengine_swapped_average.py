"""MMEngine cannot keep an average of the weights beside them."""

from typing import Any

from mmengine.hooks import EMAHook


class UnswappedEMAHook(EMAHook):
    """MMEngine's EMA hook always evaluates the average and stores it as the weights.

    True of MMEngine 0.10.7 (mmengine issue 1678, open, asks for files of their own):
    there is no option that keeps an average beside the weights. mmpretrain's hook can
    evaluate the raw weights, but still stores the average as ``state_dict``, so that a
    test of the file scores other weights than training reported. This class never
    exchanges them. May go once MMEngine's hook can leave the weights where they are.
    """

    def _swap_ema_state_dict(self, checkpoint: dict[str, Any]) -> None:
        pass

    def _swap_ema_parameters(self) -> None:
        pass
