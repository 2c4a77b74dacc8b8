"""The hook by which a training ends: at a signal, or at a loss that is not finite."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_reduce, get_world_size, is_main_process
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook, EMAHook, Hook
from mmengine.runner import Runner

from lm4ve.compat.mmengine_lost_gradients import ended_update
from lm4ve.errors import UserError, listing
from lm4ve.files import write_text
from lm4ve.registry import HOOKS
from lm4ve.runner.ending.losses import (
    StepLosses,
    find_bad,
    find_bad_anywhere,
    find_bad_weights,
    losses_of,
    stack_scalars,
)
from lm4ve.runner.ending.signals import current_signals, keep_workers_at_signals
from lm4ve.runner.ending.together import Stopped, failing_together, of_all

#: The most iterations between two agreements.
ITERATIONS = 10
#: The most seconds between two agreements, as far as an iteration is shorter than that.
SECONDS = 2.0
#: The names of checkpoints that were saved at a signal, in the message hub.
_NAMES = 'stop_checkpoints'


@HOOKS.register_module()
class EndingHook(Hook):  # type: ignore[misc]
    """End a training at a signal, and at a loss or a weight that is NaN or infinite.

    :mod:`lm4ve.runner.ending` says how several processes agree on it. At a signal, a
    checkpoint ``iter_1234.pth`` is written between the regular ones, and deleted once
    the next regular one is there. So does Ctrl-C if what ran in the iteration has caught
    its exception. Runners that our commands build have this hook.

    Weights are checked before each saving, since a finite loss may have a gradient that
    is not.

    Args:
        tolerate (int): How many iterations in a row may have a loss that is not finite,
            for example with mixed precision, whose scaler skips them. The count begins
            anew when a training is resumed. -1: any number, as MMEngine does.
    """

    # Before all others: a checkpoint between two iterations holds nothing of the next one.
    priority = 'HIGHEST'

    def __init__(self, tolerate: int = 0) -> None:
        self.tolerate = tolerate
        self._forget()

    def _forget(self) -> None:
        """Forget an earlier training."""
        self._unread: list[StepLosses] = []
        #: Up to the last iteration that was read.
        self._bad_in_a_row = 0
        #: The signal that one of the processes got, once all know of it.
        self._asked: int | None = None
        self._trains = False
        # Iterations, of this start, since the last agreement; when that was; and after
        # how many the next one is due. The first iterations are slow.
        self._has_trained = False
        self._iterations = 0
        self._agreed_at = time.monotonic()
        self._interval = 1
        # The last regular checkpoint, and how many iterations are in the last one of all.
        self._regular: str | None = None
        self._saved_at = -1
        self._is_saving = False
        self._saved_in_validation = False

    def before_train(self, runner: Runner) -> None:
        """Let signals wait for the agreement, also those of the dataloaders' workers."""
        self._forget()
        self._trains = True
        for loop in (runner.train_loop, runner.val_loop):
            if loop is not None:
                keep_workers_at_signals(loop.dataloader)
        signals = current_signals()
        if signals is not None:
            signals.wait_for_training()

    def after_run(self, runner: Runner) -> None:
        """Let signals raise their exception at once again, after the training."""
        if self._trains:
            self._note_regular(runner)
        self._trains = False
        signals = current_signals()
        if signals is not None:
            signals.waits = False

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        """Agree if it is time, and stop between two updates if a process was asked to.

        All hooks are done with the iteration before. One process has nobody to ask, and
        stops after any update.

        Raises:
            Stopped: The training was asked to stop.
            UserError: More than ``tolerate`` losses in a row are not finite.
        """
        self._note_regular(runner)
        if not self._has_trained:
            return
        is_asked_alone = get_world_size() == 1 and _asked_here() > 0
        if self._iterations >= self._interval or is_asked_alone:
            self.agree()
        self._stop_if_asked(runner)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        """Keep the losses of the iteration.

        Args:
            runner (Runner): The runner.
            batch_idx (int): Not used.
            data_batch: Not used.
            outputs (dict, optional): The results of the step, with its losses.
        """
        self._has_trained = True
        self._iterations += 1
        if self.tolerate < 0:
            return
        losses = losses_of(outputs)
        values = stack_scalars(list(losses.values()))
        self._unread.append(
            StepLosses(runner.iter + 1, runner.epoch + 1, tuple(losses), values)
        )

    def after_failed_iter(self, runner: Runner) -> None:
        """Look for a bad loss before the iteration that has raised an error.

        Our training loops call this. With weights that are NaN, a model may fail in a
        way that does not say so. The other processes are not asked: they need not have
        failed.

        Raises:
            UserError: More than ``tolerate`` losses in a row are not finite.
        """
        self._count(self._unread, find_bad(self._unread))

    def after_train_epoch(self, runner: Runner) -> None:
        """Agree at the end of an epoch, before its checkpoint and its validation.

        A training that stops here goes on with both.

        Raises:
            Stopped, UserError: See :meth:`before_train_iter`.
        """
        self._note_regular(runner)
        self.agree()
        self._stop_if_asked(runner)

    def before_val_epoch(self, runner: Runner) -> None:
        """Agree before weights are validated that should not be.

        Raises:
            UserError: See :meth:`before_train_iter`.
        """
        self._saved_in_validation = False
        if self._trains:
            self._note_regular(runner)
            self.agree()

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        """Save, and with one process end the run, after an iteration of validation.

        Several processes have agreed that all losses up to here are finite, so the first
        one needs nobody to save. All stop once the validation is done. MMEngine's
        FlexibleRunner saves in all processes together, so it ends the validation first.

        Raises:
            Stopped: See :meth:`before_train_iter`.
        """
        asked = self._asked or _asked_here()
        if not self._trains or not asked or not isinstance(runner, Runner):
            return
        if not self._saved_in_validation:
            self._saved_in_validation = True
            self._save_unaveraged(runner)
        if get_world_size() == 1:
            raise Stopped(asked)

    def after_val_epoch(
        self, runner: Runner, metrics: dict[str, float] | None = None
    ) -> None:
        """Agree after a validation, which may have been long: the next update stops."""
        if self._trains:
            self.agree()

    def before_save_checkpoint(
        self, runner: Runner, checkpoint: dict[str, Any]
    ) -> None:
        """Refuse to save after a loss, or with trained weights, that are not finite.

        MMEngine calls this in the main process only. So losses that were not read, as
        other hooks than ours may save at any time, are looked at here without the other
        processes, and stay for the next agreement.

        Raises:
            UserError: A loss or a weight is NaN or infinite, unless any loss is
                tolerated.
        """
        if self._is_saving:
            # MMEngine's FlexibleRunner writes one more iteration than is done.
            checkpoint['meta'].update(epoch=runner.epoch, iter=runner.iter)
        if self.tolerate < 0:
            return
        self._count(self._unread, find_bad(self._unread))
        bad = find_bad_weights(runner.model)
        if bad:
            raise UserError(
                f'After iteration {runner.iter + 1} (epoch {runner.epoch + 1}) {len(bad)} weights '
                f'are not finite and were not saved: {listing(bad)}. Clip gradients or lower the '
                'learning rate and --resume; default_hooks.ending.tolerate=-1 saves them.'
            )

    def agree(self) -> None:
        """Exchange what may end the training; all processes call this after the same iteration.

        Raises:
            UserError: More than ``tolerate`` losses in a row are not finite. All
                processes raise it.
        """
        steps = self._unread
        self._unread = []
        bad = find_bad(steps)
        now = time.monotonic()
        seconds = (now - self._agreed_at) / max(1, self._iterations)
        flags = torch.tensor([float(any(bad)), float(_asked_here()), seconds])
        all_reduce(flags, 'max')
        is_bad, asked, slowest = flags.tolist()
        if self._iterations:
            # The same in all processes, which have to agree after the same iteration.
            fitting = int(SECONDS / max(slowest, 1e-6))
            self._interval = min(max(1, fitting), ITERATIONS)
        self._iterations = 0
        self._agreed_at = now
        if asked:
            self._asked = int(asked)
        if not is_bad:
            if steps:
                self._bad_in_a_row = 0
            return
        bad = find_bad_anywhere(steps)
        try:
            self._bad_in_a_row = self._count(steps, bad)
        except UserError as e:
            of_all(e)
            raise

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
                    'default_hooks.ending.tolerate=N permits N in a row.'
                )
        return in_a_row

    def _stop_if_asked(self, runner: Runner) -> None:
        """Save and stop if all know of a signal, unless an update is under way.

        Raises:
            Stopped: In all processes.
        """
        if self._asked is None or not ended_update(runner):
            return
        if self._saved_at != runner.iter:
            self._is_saving = True
            try:
                with saving(runner):
                    save_iteration(runner, runner.iter)
            finally:
                self._is_saving = False
        raise Stopped(self._asked)

    def _note_regular(self, runner: Runner) -> None:
        """Note a regular checkpoint that was written since the last call.

        Those of signals, which are older, are deleted.
        """
        hook = _checkpoint_hook(runner)
        if hook is None or hook.last_ckpt == self._regular:
            return
        self._regular = hook.last_ckpt
        self._saved_at = runner.iter
        outdated = _names_of(runner)
        runner.message_hub.update_info(_NAMES, [])
        if is_main_process():
            regular = Path(hook.last_ckpt).name
            _delete(hook, [name for name in outdated if name != regular])

    def _save_unaveraged(self, runner: Runner) -> None:
        """Save the state of a training during its validation, which may be of an average."""
        if self._saved_at == runner.iter:
            return
        averages = [hook for hook in runner.hooks if isinstance(hook, EMAHook)]
        for hook in averages:
            hook.after_val_epoch(runner)
        save_iteration(runner, runner.iter)
        for hook in averages:
            hook.before_val_epoch(runner)


def _asked_here() -> int:
    """Return the number of the signal that this process got; 0 without one."""
    signals = current_signals()
    if signals is None or signals.asked is None:
        return 0
    return signals.asked


@contextlib.contextmanager
def saving(runner: Runner) -> Iterator[None]:
    """Write a checkpoint within this context, in which all processes are at the same time.

    Raises:
        UserError: A loss or a weight is not finite, or one of the processes has raised
            it.
        StorageError, RuntimeError: See :func:`.together.failing_together`.
    """
    for hook in runner.hooks:
        if isinstance(hook, EndingHook):
            hook.agree()
    with failing_together():
        yield


def save_iteration(runner: Runner, done: int) -> None:
    """Save a checkpoint ``iter_N.pth``, and delete older ones beyond ``max_keep_ckpts``.

    Nothing is saved where the run has no hook that saves.

    Args:
        runner (Runner): Called in all processes.
        done (int): How many iterations are done.
    """
    hook = _checkpoint_hook(runner)
    if hook is None:
        return
    name = f'iter_{done}.pth'
    path = hook.file_backend.join_path(hook.out_dir, name)
    names = [other for other in _names_of(runner) if other != name]
    names.append(name)
    kept = names
    if hook.max_keep_ckpts > 0:
        kept = names[-hook.max_keep_ckpts :]
    # Before saving, since the checkpoint stores it.
    runner.message_hub.update_info(_NAMES, kept)
    runner.message_hub.update_info('last_ckpt', path)
    backend = hook.backend_args
    is_local = isinstance(hook.file_backend, LocalBackend)
    if is_local and not backend and not hook.file_client_args:
        backend = dict(backend='lm4ve_atomic')
    runner.save_checkpoint(
        hook.out_dir,
        name,
        hook.file_client_args,
        save_optimizer=hook.save_optimizer,
        save_param_scheduler=hook.save_param_scheduler,
        meta=dict(epoch=runner.epoch, iter=done),
        by_epoch=False,
        backend_args=backend,
    )
    if is_main_process():
        write_text(path, Path(runner.work_dir) / 'last_checkpoint')
        _delete(hook, names[: -len(kept)])


def _names_of(runner: Runner) -> list[str]:
    """Return the names of the checkpoints that were saved at signals, the oldest first."""
    return list(runner.message_hub.runtime_info.get(_NAMES, ()))


def _checkpoint_hook(runner: Runner) -> CheckpointHook | None:
    """Return the hook of a run that saves checkpoints, or None."""
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook):
            return hook
    return None


def _delete(hook: CheckpointHook, names: Sequence[str]) -> None:
    """Delete checkpoints of a hook's folder, as far as they exist."""
    for name in names:
        path = hook.file_backend.join_path(hook.out_dir, name)
        if hook.file_backend.isfile(path):
            hook.file_backend.remove(path)
