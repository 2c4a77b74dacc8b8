"""Stop a training whose loss or weights are NaN or infinite.

MMEngine trains on with weights that are NaN and overwrites good checkpoints with them.

All processes have to stop together, so they exchange what they find. Losses are kept where
they are, and those of many iterations are read and exchanged at once. A GPU is waited for
in every iteration all the same: MMEngine's ``RuntimeInfoHook`` reads the losses for the log,
and its optimizer wrapper the norm of the gradients that it clips.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from mmengine.dist import all_gather_object
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner

from lm4ve.errors import UserError, listing
from lm4ve.registry import HOOKS


class StepLosses(NamedTuple):
    """The losses of one iteration, not read yet.

    Attributes:
        iteration (int): Its number, from 1.
        epoch (int): The number of its epoch, from 1.
        names (tuple[str, ...]): Of the losses.
        values (Tensor, optional): Of shape [len(names)]; None without losses.
    """

    iteration: int
    epoch: int
    names: tuple[str, ...]
    values: torch.Tensor | None


@HOOKS.register_module()
class FiniteLossHook(Hook):  # type: ignore[misc]
    """Raise at the first iteration whose loss is NaN or infinite.

    Losses are read every ``interval`` iterations, and before each validation, each
    checkpoint and the end of an epoch. So up to ``interval`` iterations may run on
    before the training stops, and an average of the weights (EMA) may take them in
    memory. None of it is evaluated or saved: the newest checkpoint is a good one, with
    its average. All processes stop together where one of them has such a loss.

    Weights are checked before each saving, since a finite loss may have a gradient that
    is not.

    Args:
        tolerate (int): How many iterations in a row may have such a loss, for example
            with mixed precision, whose scaler skips them. The count begins anew when a
            training is resumed. -1: any number, as MMEngine does.
        interval (int): How many iterations pass between two reads.
    """

    # Before the hooks that average and save.
    priority = 'ABOVE_NORMAL'

    def __init__(self, tolerate: int = 0, interval: int = 20) -> None:
        self.tolerate = tolerate
        self.interval = interval
        self._unread: list[StepLosses] = []
        #: Up to the last iteration that was read.
        self._bad_in_a_row = 0

    def before_train(self, runner: Runner) -> None:
        """Forget an earlier training."""
        self._unread = []
        self._bad_in_a_row = 0

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        """Keep the losses of the iteration, and read all that are kept if it is time.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Not used.
            data_batch: Not used.
            outputs (dict, optional): The results of the step, with its losses.

        Raises:
            UserError: More than ``tolerate`` iterations in a row; it names the losses.
        """
        if self.tolerate < 0:
            return
        losses = losses_of(outputs)
        values = stack_scalars(list(losses.values()))
        self._unread.append(
            StepLosses(runner.iter + 1, runner.epoch + 1, tuple(losses), values)
        )
        is_time = self.every_n_train_iters(runner, self.interval)
        if is_time or saves_now(runner):
            self.read_losses()

    def after_failed_iter(self, runner: Runner) -> None:
        """Look for a bad loss before the iteration that has raised an error.

        Our training loops call this. With weights that are NaN, a model may fail in a
        way that does not say so. The other processes are not asked: they need not have
        failed.

        Raises:
            UserError: See :meth:`after_train_iter`.
        """
        self._count(self._unread, find_bad(self._unread))

    def after_train_epoch(self, runner: Runner) -> None:
        """Read the losses before the epoch's checkpoint.

        Raises:
            UserError: See :meth:`after_train_iter`.
        """
        self.read_losses()

    def before_val_epoch(self, runner: Runner) -> None:
        """Read the losses before weights are evaluated that should not be.

        Raises:
            UserError: See :meth:`after_train_iter`.
        """
        self.read_losses()

    def before_save_checkpoint(
        self, runner: Runner, checkpoint: dict[str, Any]
    ) -> None:
        """Refuse to save after a loss, or with trained weights, that are not finite.

        MMEngine calls this in the main process only. So losses that were not read, as
        other hooks than MMEngine's may save at any time, are looked at here without
        the other processes, and stay for the next read.

        Raises:
            UserError: A loss or a weight is NaN or infinite, unless any loss is
                tolerated.
        """
        if self.tolerate < 0:
            return
        self._count(self._unread, find_bad(self._unread))
        bad = find_bad_weights(runner.model)
        if bad:
            raise UserError(
                f'After iteration {runner.iter + 1} (epoch {runner.epoch + 1}) {len(bad)} weights '
                f'are not finite and were not saved: {listing(bad)}. Clip gradients or lower the '
                'learning rate and --resume; default_hooks.finite_loss.tolerate=-1 saves them.'
            )

    def read_losses(self) -> None:
        """Read the losses of all iterations since the last read, of all processes.

        All processes call this, and each has kept those of the same iterations.

        Raises:
            UserError: See :meth:`after_train_iter`.
        """
        steps = self._unread
        self._unread = []
        if steps:
            bad = find_bad_anywhere(steps)
            self._bad_in_a_row = self._count(steps, bad)

    def _count(
        self, steps: Sequence[StepLosses], bad: Sequence[dict[str, float]]
    ) -> int:
        """Count the iterations in a row with a loss that is not finite.

        Args:
            steps (Sequence[StepLosses]): The iterations since the last read.
            bad (Sequence[dict]): Of each, the losses that are not finite by name.

        Returns:
            int: How many there are up to the last one.

        Raises:
            UserError: More than ``tolerate``.
        """
        in_a_row = self._bad_in_a_row
        for step, losses in zip(steps, bad, strict=True):
            if not losses:
                in_a_row = 0
                continue
            in_a_row += 1
            if in_a_row > self.tolerate:
                first = next(iter(losses.values()))
                raise UserError(
                    f'{", ".join(losses)} of iteration {step.iteration} (epoch {step.epoch}) is '
                    f'{first}: training stopped before it was saved. '
                    'Lower the learning rate or clip gradients; --resume auto goes on from the '
                    'last checkpoint, if there is one; '
                    'default_hooks.finite_loss.tolerate=N permits N in a row.'
                )
        return in_a_row


def losses_of(outputs: Any) -> dict[str, torch.Tensor]:
    """Return the results of a training step with 'loss' in their names, as tensors."""
    losses = {}
    for name, value in (outputs or {}).items():
        if 'loss' in name:
            losses[name] = torch.as_tensor(value)
    return losses


def stack_scalars(tensors: Sequence[torch.Tensor]) -> torch.Tensor | None:
    """Return the means of tensors in one, without waiting for the device.

    The result is a copy, so that a compiled model may write over its losses in the next
    iteration.

    Args:
        tensors (Sequence[Tensor]): Usually scalars.

    Returns:
        Tensor | None: Of shape [len(tensors)], on the device of the first one; None if
        there are none.
    """
    if not tensors:
        return None
    scalars = []
    for tensor in tensors:
        value = tensor.detach()
        # A mean of 16 bits could be infinite although no value is.
        value = value.to(torch.promote_types(value.dtype, torch.float32))
        if value.dim() > 0:
            value = value.mean()
        scalars.append(value.to(tensors[0].device))
    return torch.stack(scalars)


def find_bad(steps: Sequence[StepLosses]) -> list[dict[str, float]]:
    """Return the losses of each iteration that are not finite, by name.

    The device is waited for once.
    """
    values = [step.values for step in steps if step.values is not None]
    if not values:
        return [{} for _ in steps]
    numbers = iter(torch.cat(values).tolist())
    found = []
    for step in steps:
        bad = {}
        for name in step.names:
            number = next(numbers)
            if not math.isfinite(number):
                bad[name] = number
        found.append(bad)
    return found


def find_bad_anywhere(steps: Sequence[StepLosses]) -> list[dict[str, float]]:
    """Return the losses of each iteration that are not finite in any process.

    Those of other processes than the main one have their rank in their names.
    """
    by_rank = all_gather_object(find_bad(steps))
    found: list[dict[str, float]] = [{} for _ in steps]
    for rank, of_rank in enumerate(by_rank):
        for merged, bad in zip(found, of_rank, strict=True):
            for name, value in bad.items():
                if rank > 0:
                    name = f'{name} (rank {rank})'
                merged[name] = value
    return found


def saves_now(runner: Runner) -> bool:
    """Return whether a checkpoint hook saves after the present iteration."""
    for hook in runner.hooks:
        if not isinstance(hook, CheckpointHook) or hook.by_epoch:
            continue
        is_last = hook.save_last and hook.is_last_train_iter(runner)
        if is_last or hook.every_n_train_iters(runner, hook.interval, hook.save_begin):
            return True
    return False


def find_bad_weights(model: torch.nn.Module) -> list[str]:
    """Return the names of trained weights that are not finite.

    The device is waited for once.
    """
    names = []
    checks = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            names.append(name)
            checks.append(torch.isfinite(parameter).all())
    flags = stack_scalars(checks)
    if flags is None:
        return []
    bad = []
    for name, is_finite in zip(names, flags.tolist(), strict=True):
        if not is_finite:
            bad.append(name)
    return bad
