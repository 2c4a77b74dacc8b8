"""Where LLMBoostMedical's training begins in its schedule, and when it ends."""

import warnings
from typing import Any

from mmengine.hooks import Hook
from mmengine.optim import CosineAnnealingLR
from mmengine.runner import Runner

from lm4ve.errors import UserError, listing
from lm4ve.registry import HOOKS, PARAM_SCHEDULERS
from lm4ve.runner.console import SHOWN


@PARAM_SCHEDULERS.register_module()
class LateCosineAnnealingLR(CosineAnnealingLR):
    """A cosine schedule without its first part.

    LLMBoostMedical's code counts its epochs from that of the checkpoint it starts with
    (``2D_classification/main.py:452``), and its rates with them.

    Args:
        optimizer: Optimizer or wrapper.
        skipped (int): How many epochs, or steps, of the cosine are left out.
        **kwargs: Passed to MMEngine's ``CosineAnnealingLR``. ``T_max`` and ``end``
            count the epochs that are left out, too.
    """

    def __init__(self, optimizer: Any, skipped: int, **kwargs: Any) -> None:
        super().__init__(optimizer, **kwargs)
        with warnings.catch_warnings():
            # Of steps before the optimizer's first one, which are meant here.
            warnings.simplefilter('ignore', UserWarning)
            for _ in range(skipped):
                self.step()


@HOOKS.register_module()
class HighestLossStopHook(Hook):
    """End a training whose last validation loss is the highest of many.

    It is the rule of LLMBoostMedical's code (``2D_classification/main.py:648``):
    a training ends as soon as none of the ``patience`` losses before the last one is
    higher. MMEngine's ``EarlyStoppingHook`` waits for a new best instead.

    Args:
        monitor (str): The loss among the metrics of the validation.
        patience (int): With how many validations before it a loss is compared.

    Raises:
        UserError: The validation has no such metric.
    """

    def __init__(self, monitor: str, patience: int) -> None:
        self.monitor = monitor
        self.patience = patience

    def after_val_epoch(
        self, runner: Runner, metrics: dict[str, float] | None = None
    ) -> None:
        """Compare the last loss with those before it, also those of before a resume."""
        measured = metrics or {}
        if self.monitor not in measured:
            raise UserError(
                f"custom_hooks: monitor='{self.monitor}' is no metric of the validation, "
                f'which has {listing(sorted(measured))}.'
            )
        history, _ = runner.message_hub.get_scalar(f'val/{self.monitor}').data
        if len(history) <= self.patience:
            return
        last = history[-1]
        earlier = history[-self.patience - 1 : -1]
        if max(earlier) <= last:
            runner.logger.info(
                f'{self.monitor}={last:.4f} is the highest of {self.patience + 1} '
                'validations: the training ends.',
                extra=SHOWN,
            )
            runner.train_loop.stop_training = True
