"""Let MMEngine keep an average of the weights beside them, without exchanging the two."""

from typing import Any

from mmengine.hooks import EMAHook


class UnswappedEMAHook(EMAHook):
    """``EMAHook`` that never exchanges the average and the weights.

    The weights are evaluated and stored as ``state_dict``; the average is kept beside
    them.

    Missing in MMEngine 0.10.7 (mmengine issue 1678, open, asks for separate files): its
    hook always evaluates the average and stores it as ``state_dict``. mmpretrain's hook
    can evaluate the raw weights, but still stores the average as ``state_dict``, so that
    a test of the file scores other weights than training reported. May go once
    MMEngine's hook has an option that leaves the weights where they are.
    """

    def _swap_ema_state_dict(self, checkpoint: dict[str, Any]) -> None:
        """Leave average and weights in a checkpoint where they are; MMEngine exchanges them."""

    def _swap_ema_parameters(self) -> None:
        """Leave average and weights of the model where they are; MMEngine exchanges them."""
