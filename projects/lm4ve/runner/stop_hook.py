"""Save a checkpoint when a signal comes, and end the training.

The checkpoint lies between the regular ones: ``iter_1234.pth``. It is deleted once the
next regular one is written.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.dist import get_world_size, is_main_process
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook, EMAHook, Hook
from mmengine.runner import Runner

from lm4ve.compat.mmengine_lost_gradients import ended_update
from lm4ve.files import write_text
from lm4ve.runner.finite_loss import FiniteLossHook
from lm4ve.runner.stop_agreement import StopAgreement
from lm4ve.runner.stopping import current_signals, keep_workers_at_signals

#: The names of checkpoints that were saved at a signal, in the message hub.
_NAMES = 'stop_checkpoints'


class StopHook(Hook):  # type: ignore[misc]
    """End a run at a signal, after the iteration and a checkpoint of it.

    So does Ctrl-C if what ran in the iteration has caught its exception. Several
    processes end after the same iteration (:mod:`.stop_agreement`), whichever of them
    got the signal. In a validation, the checkpoint is written at once; one process then
    ends, whereas several finish it first. MMEngine's FlexibleRunner saves in all
    processes together, and notes one iteration more than is done: it finishes a
    validation, and saves after the next iteration of the training.

    ``after_train_iter`` calls :meth:`_save_if_new` in one process and
    :meth:`_save_with_others` in several, ``after_val_iter`` calls
    :meth:`_save_unaveraged`; all three end in :func:`save_iteration`, which writes the
    file, and which :class:`lm4ve.AtomicCheckpointHook` calls after an early stop.
    """

    priority = 'LOWEST'

    def __init__(self) -> None:
        self._agreement: StopAgreement | None = None
        # The last regular checkpoint, and how many iterations were done then.
        self._regular: str | None = None
        self._regular_at = -1
        self._saved_in_validation = False

    def before_train(self, runner: Runner) -> None:
        """Prepare the workers of dataloaders, and several processes, for signals."""
        for loop in (runner.train_loop, runner.val_loop):
            if loop is not None:
                keep_workers_at_signals(loop.dataloader)
        if get_world_size() > 1:
            self._agreement = StopAgreement(current_signals(), runner.iter)
            self._agreement.start()

    def after_run(self, runner: Runner) -> None:
        """Let signals raise their exception at once again, after the training."""
        current_signals().waits = False
        if self._agreement is not None:
            self._agreement.close()

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        """Save and end the run after an update if a signal came.

        A signal between the iterations of an update waits for its end.

        Raises:
            KeyboardInterrupt: Its argument is the signal's number.
        """
        # MMEngine counts an iteration after its hooks.
        done = runner.iter + 1
        self._note_regular(runner, done)
        if self._agreement is None:
            asked = current_signals().asked
            if asked is not None and ended_update(runner):
                self._save_if_new(runner, done)
                raise KeyboardInterrupt(asked)
        elif self._agreement.stops_after(done) and ended_update(runner):
            self._save_with_others(runner, done)
            raise KeyboardInterrupt(self._agreement.asked)

    def after_train_epoch(self, runner: Runner) -> None:
        """Note whether a regular checkpoint was written after the epoch."""
        self._note_regular(runner, runner.iter)

    def before_val_epoch(self, runner: Runner) -> None:
        """Note that nothing was saved in this validation."""
        self._saved_in_validation = False

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        """Save, and with one process end the run, after an iteration of validation.

        Raises:
            KeyboardInterrupt: Its argument is the signal's number.
        """
        signals = current_signals()
        asked = signals.asked
        if self._agreement is not None:
            asked = self._agreement.asked
        if asked is None:
            return
        if signals.waits and not isinstance(runner, Runner):
            return
        if signals.waits and not self._saved_in_validation:
            self._saved_in_validation = True
            self._save_unaveraged(runner)
        if self._agreement is None:
            raise KeyboardInterrupt(asked)

    def after_val_epoch(
        self, runner: Runner, metrics: dict[str, float] | None = None
    ) -> None:
        """Note whether a regular checkpoint was written because of its scores."""
        if current_signals().waits:
            self._note_regular(runner, runner.iter)

    def after_test_iter(self, *args: Any, **kwargs: Any) -> None:
        """End a test after an iteration if a signal came.

        Raises:
            KeyboardInterrupt: Its argument is the signal's number.
        """
        asked = current_signals().asked
        if asked is not None:
            raise KeyboardInterrupt(asked)

    def _note_regular(self, runner: Runner, done: int) -> None:
        """Note a regular checkpoint, and delete those of signals, which are older.

        Args:
            runner (Runner): The runner.
            done (int): How many iterations are done.
        """
        hook = _checkpoint_hook(runner)
        if hook is None or hook.last_ckpt == self._regular:
            return
        self._regular = hook.last_ckpt
        self._regular_at = done
        outdated = _names_of(runner)
        runner.message_hub.update_info(_NAMES, [])
        if is_main_process():
            regular = Path(hook.last_ckpt).name
            _delete(hook, [name for name in outdated if name != regular])

    def _save_if_new(self, runner: Runner, done: int) -> None:
        """Save a checkpoint, unless a regular one of this iteration was just written."""
        if done != self._regular_at:
            save_iteration(runner, done)

    def _save_with_others(self, runner: Runner, done: int) -> None:
        """Save the checkpoint of several processes; none ends before it is written."""
        assert self._agreement is not None
        if self._agreement.is_decided:
            _read_losses(runner)
        try:
            self._save_if_new(runner, done)
        finally:
            if is_main_process():
                self._agreement.tell_saved()
        self._agreement.wait_until_saved()

    def _save_unaveraged(self, runner: Runner) -> None:
        """Save the state of a training during its validation, which may be of an average."""
        averages = [hook for hook in runner.hooks if isinstance(hook, EMAHook)]
        for hook in averages:
            hook.after_val_epoch(runner)
        self._save_if_new(runner, runner.iter)
        for hook in averages:
            hook.before_val_epoch(runner)


def _read_losses(runner: Runner) -> None:
    """Read the losses of all processes before a checkpoint is written, by the first one.

    Raises:
        UserError: One of them is not finite.
    """
    for hook in runner.hooks:
        if isinstance(hook, FiniteLossHook):
            hook.read_losses()


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
