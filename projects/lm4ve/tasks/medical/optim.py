"""Where LLMBoostMedical's training begins in its schedule, and when it ends."""

import warnings

from mmengine.hooks import Hook
from mmengine.runner import Runner

from lm4ve.errors import UserError, listing
from lm4ve.registry import HOOKS


@HOOKS.register_module()
class LateScheduleHook(Hook):
    """Begin a training with the rates that a schedule has after some epochs.

    LLMBoostMedical's code counts its epochs from that of the checkpoint it starts with
    (``2D_classification/main.py:452``), and its rates with them.

    Args:
        epochs (int): How many epochs of the schedule are left out; 0 for none.
    """

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def before_train(self, runner: Runner) -> None:
        """Step all schedules; those of a resumed training have been stepped already."""
        if runner.iter > 0:
            return
        with warnings.catch_warnings():
            # Of steps before the optimizer's first one, which are meant here.
            warnings.simplefilter('ignore', UserWarning)
            for scheduler in runner.param_schedulers:
                for _ in range(self.epochs):
                    scheduler.step()


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
                'validations: the training ends.'
            )
            runner.train_loop.stop_training = True
