"""Stop a training whose loss or weights are not finite, before it is saved.

MMEngine trains on, overwrites good checkpoints with weights that are NaN, and exits 0.
"""

from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from lm4ve.errors import UserError, listing
from lm4ve.registry import HOOKS


@HOOKS.register_module()
class FiniteLossHook(Hook):  # type: ignore[misc]
    """Raise at the first iteration whose loss is NaN or infinite.

    Nothing of that iteration is saved, so that the newest checkpoint is a good one. Weights are
    checked before each saving, since a finite loss may have a gradient that is not.

    Args:
        tolerate (int): How many iterations in a row may have such a loss, for example with
            mixed precision, whose scaler skips them. -1: any number, as MMEngine does.
    """

    # Before the hooks that average and save.
    priority = 'ABOVE_NORMAL'

    def __init__(self, tolerate: int = 0) -> None:
        self.tolerate = tolerate
        self._in_a_row = 0

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict[str, Any] | None = None,
    ) -> None:
        """Check the losses that the step returned.

        Raises:
            UserError: Too many in a row are not finite; it names the iteration.
        """
        losses = {k: v for k, v in (outputs or {}).items() if 'loss' in k}
        bad = [k for k, v in losses.items() if not torch.isfinite(torch.as_tensor(v)).all()]
        self._in_a_row = self._in_a_row + 1 if bad else 0
        if self.tolerate < 0 or self._in_a_row <= self.tolerate:
            return
        value = float(torch.as_tensor(losses[bad[0]]).detach().mean())
        raise UserError(
            f'{", ".join(bad)} of iteration {runner.iter + 1} (epoch {runner.epoch + 1}) is '
            f'{value}: training stopped before it was saved. Lower the learning rate or clip '
            'gradients and --resume; default_hooks.finite_loss.tolerate=N permits N in a row.'
        )

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Check the weights that train.

        Raises:
            UserError: One of them is NaN or infinite.
        """
        if self.tolerate < 0:
            return
        named = runner.model.named_parameters()
        bad = [k for k, p in named if p.requires_grad and not torch.isfinite(p).all()]
        if bad:
            raise UserError(
                f'After iteration {runner.iter + 1} (epoch {runner.epoch + 1}) {len(bad)} weights '
                f'are not finite and were not saved: {listing(bad)}. Clip gradients or lower the '
                'learning rate and --resume; default_hooks.finite_loss.tolerate=-1 saves them.'
            )
