"""The loss of a training epoch as a score, for recipes that go by it.

Schedules and the choice of a checkpoint read the scores of a validation. A few released
recipes go by the loss of training instead.
"""

from typing import Any

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.runner import Runner

from lm4ve.errors import UserError
from lm4ve.registry import HOOKS

_LOSS = 'train/loss'


@HOOKS.register_module()
class TrainingLossHook(Hook):  # type: ignore[misc]
    """Add ``train/loss``, the mean loss of the epoch that ended, to the scores of a validation.

    ``ReduceOnPlateauLR(monitor='train/loss')`` and ``save_best='train/loss'`` of the
    checkpoint hook then go by it. With ``train_cfg.val_interval`` above 1 the epochs
    between two validations do not count. In a distributed training it is the mean over
    all processes.
    """

    # Before the hooks of schedules and checkpoints, which read the scores.
    priority = 'NORMAL'

    def after_val_epoch(
        self, runner: Runner, metrics: dict[str, Any] | None = None
    ) -> None:
        """Add the loss to the scores; a validation without a training has none.

        Args:
            runner (Runner): The runner.
            metrics (dict, optional): The scores, which are changed in place.

        Raises:
            UserError: ``metrics`` has a score of this name already.
        """
        losses = runner.message_hub.log_scalars.get(_LOSS)
        if metrics is None or losses is None:
            return
        if _LOSS in metrics:
            raise UserError(f"An evaluator gives '{_LOSS}' itself. Fix: its prefix.")
        mean = losses.mean(len(runner.train_dataloader))
        total = torch.tensor(float(mean), dtype=torch.float64)
        all_reduce(total, op='mean')
        metrics[_LOSS] = total.item()
