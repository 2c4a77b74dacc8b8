"""Stop a training whose loss or weights are NaN or infinite.

MMEngine trains on with weights that are NaN and overwrites good checkpoints with them.
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

    Nothing of that iteration is saved, so that the newest checkpoint is a good one.
    Weights are checked before each saving, since a finite loss may have a gradient that
    is not.

    Args:
        tolerate (int): How many iterations in a row may have such a loss, for example
            with mixed precision, whose scaler skips them. -1: any number, as MMEngine
            does.
    """

    # Before the hooks that average and save.
    priority = 'ABOVE_NORMAL'

    def __init__(self, tolerate: int = 0) -> None:
        self.tolerate = tolerate
        self._bad_in_a_row = 0

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        """Count iterations in a row with a loss that is not finite, and stop at too many.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Not used.
            data_batch: Not used.
            outputs (dict, optional): The results of the step, with its losses.

        Raises:
            UserError: More than ``tolerate`` iterations in a row; it names the losses.
        """
        bad = {}
        for name, loss in losses_of(outputs).items():
            if not torch.isfinite(loss).all():
                bad[name] = loss
        if not bad:
            self._bad_in_a_row = 0
            return
        self._bad_in_a_row += 1
        if 0 <= self.tolerate < self._bad_in_a_row:
            first = next(iter(bad.values()))
            raise UserError(
                f'{", ".join(bad)} of iteration {runner.iter + 1} (epoch {runner.epoch + 1}) is '
                f'{float(first.detach().mean())}: training stopped before it was saved. '
                'Lower the learning rate or clip gradients and --resume; '
                'default_hooks.finite_loss.tolerate=N permits N in a row.'
            )

    def before_save_checkpoint(
        self, runner: Runner, checkpoint: dict[str, Any]
    ) -> None:
        """Refuse to save trained weights that are not finite, unless any loss is tolerated.

        Raises:
            UserError: One of them is NaN or infinite.
        """
        if self.tolerate < 0:
            return
        bad = []
        for name, parameter in runner.model.named_parameters():
            if parameter.requires_grad and not torch.isfinite(parameter).all():
                bad.append(name)
        if bad:
            raise UserError(
                f'After iteration {runner.iter + 1} (epoch {runner.epoch + 1}) {len(bad)} weights '
                f'are not finite and were not saved: {listing(bad)}. Clip gradients or lower the '
                'learning rate and --resume; default_hooks.finite_loss.tolerate=-1 saves them.'
            )


def losses_of(outputs: Any) -> dict[str, torch.Tensor]:
    """Return the results of a training step with 'loss' in their names, as tensors."""
    losses = {}
    for name, value in (outputs or {}).items():
        if 'loss' in name:
            losses[name] = torch.as_tensor(value)
    return losses
