"""Hooks that save checkpoints atomically and as plain data, and load them strictly.

MMEngine writes a checkpoint straight to its final name and deletes the one before it
first; a full disk or a killed job then leaves none. It pickles its message hub, which
safe loaders refuse (:mod:`.plain_data`). And it loads what fits and logs the rest, so
that a test of another model's checkpoint ends with a score near chance and exit status
0.
"""

from collections import OrderedDict
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.distributed.fsdp import FullyShardedDataParallel

from lm4ve.blocks.record import accept_records
from lm4ve.compat.mmengine_lost_gradients import counts_of
from lm4ve.compat.mmengine_runner_state import (
    source_of,
    starts_training,
    use_of_checkpoint,
)
from lm4ve.compat.mmengine_save_order import SavesBeforeDeleting
from lm4ve.files import clear_left_behind, write_atomically
from lm4ve.llm.finite import check_finite
from lm4ve.registry import HOOKS
from lm4ve.runner.accumulation import go_on_within_update
from lm4ve.runner.checkpoint_files import load_strictly, select_state
from lm4ve.runner.ending.hook import save_iteration, saving
from lm4ve.runner.plain_data import restore_histories, to_plain
from lm4ve.runner.same_data import SameDataHook, innermost
from lm4ve.runner.trained_config import Use, compare_with_training

Checkpoint = dict[str, Any]
#: The key of accumulated gradients in a checkpoint of an earlier version.
GRADIENTS = 'lm4ve_gradients'


@register_backend('lm4ve_atomic')
class AtomicLocalBackend(LocalBackend):  # type: ignore[misc]
    """MMEngine's local backend with atomic writes."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes; see :func:`lm4ve.files.write_atomically`."""
        write_atomically(obj, filepath)


@HOOKS.register_module()
class AtomicCheckpointHook(SavesBeforeDeleting):
    """``CheckpointHook`` that never has fewer good files than before.

    The new checkpoint is written beside its name and renamed; outdated ones
    are deleted after that. Takes the arguments of MMEngine's hook; on remote
    storage (``backend_args``) the order is kept and writing is MMEngine's.
    """

    backend_args: dict[str, Any] | None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: Accumulated gradients of the resumed checkpoint, by the names of parameters.
        self._gradients: dict[str, torch.Tensor] = {}

    def before_train(self, runner: Runner) -> None:
        """Prepare the folder.

        Local files will be written by the atomic backend, and half-written files of
        killed runs are deleted.
        """
        super().before_train(runner)
        is_local = isinstance(self.file_backend, LocalBackend)
        if is_local and not self.backend_args and not self.file_client_args:
            self.backend_args = dict(backend='lm4ve_atomic')
            if is_main_process():
                self._clear_left_behind(runner)

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        """Go on within the update in which the resumed checkpoint was written.

        Earlier versions wrote such files, with the gradients of the update's first
        iterations. Now a checkpoint is written at the end of an update.
        """
        gradients = self._gradients
        self._gradients = {}
        if not gradients or runner.iter == 0 or counts_of(runner) == 1:
            return
        for name, parameter in runner.model.named_parameters():
            if name in gradients:
                parameter.grad = gradients[name].to(parameter)
        go_on_within_update(runner, batch_idx)

    def _clear_left_behind(self, runner: Runner) -> None:
        """Delete half-written files in the run's folders, and log which."""
        for folder in {str(self.out_dir), str(runner.work_dir)}:
            for path in clear_left_behind(folder):
                runner.logger.info(
                    f"Deleted '{path}', which a killed run left half done."
                )

    def saving(self, runner: Runner) -> AbstractContextManager[None]:
        """Write no bad step, and fail in all processes if one cannot write."""
        return saving(runner)

    def after_train(self, runner: Runner) -> None:
        """Save the end of a training that has stopped early, then publish.

        MMEngine saves at intervals and at the planned end, so that with its
        ``EarlyStoppingHook`` the last epochs, or all of them, would be lost.
        """
        has_stopped_early = getattr(runner.train_loop, 'stop_training', False)
        if has_stopped_early and self.save_last and not self._has_saved_end(runner):
            with self.saving(runner):
                save_iteration(runner, runner.iter)
            # MMEngine publishes this checkpoint.
            self.last_ckpt = runner.message_hub.get_info('last_ckpt')
        with self.saving(runner):
            super().after_train(runner)

    def _has_saved_end(self, runner: Runner) -> bool:
        """Return whether the last regular checkpoint holds all that was trained."""
        if self.last_ckpt is None:
            return False
        done = runner.epoch if self.by_epoch else runner.iter
        name_of_end: str = self.filename_tmpl.format(done)
        return Path(self.last_ckpt).name == name_of_end

    def after_load_checkpoint(self, runner: Runner, checkpoint: Checkpoint) -> None:
        """Keep the gradients of a checkpoint until :meth:`before_train_iter` restores them."""
        self._gradients = checkpoint.get(GRADIENTS, {})


@HOOKS.register_module()
class PlainCheckpointHook(Hook):  # type: ignore[misc]
    """Store plain data only, so that checkpoints load safely.

    ``torch.load(weights_only=True)`` accepts tensors and plain containers.
    MMEngine's history buffers become dicts of tensors on saving and are rebuilt
    on loading. Stock MMEngine resumes such a file too, without the history. Runners
    that our commands build have this hook.
    """

    # After every other hook that touches the checkpoint.
    priority = 'LOWEST'

    def before_save_checkpoint(self, runner: Runner, checkpoint: Checkpoint) -> None:
        """Turn everything in the checkpoint into plain data, in place."""
        for key, value in checkpoint.items():
            checkpoint[key] = to_plain(value, key)

    def after_load_checkpoint(self, runner: Runner, checkpoint: Checkpoint) -> None:
        """Rebuild the history buffers in the checkpoint, in place."""
        restore_histories(checkpoint)


@HOOKS.register_module()
class WholeCheckpointHook(SameDataHook):
    """Refuse a checkpoint whose tensors do not fit the model, or whose classes not the data.

    This holds for evaluation and for ``resume``. Training that begins with
    ``load_from`` may take a part of a file, as fine-tuning does. Models that FSDP has
    split are not checked. Weights that are NaN or infinite are always refused.

    Args:
        allow_partial (bool): Load what fits and log the rest, as MMEngine does.
        strict_config (bool): Refuse a checkpoint that was trained with another model or
            preprocessing than the runner's config has. By default a warning lists what
            differs.
    """

    # After the hooks that change the state, such as EMA's.
    priority = 'LOWEST'

    def __init__(
        self, allow_partial: bool = False, strict_config: bool = False
    ) -> None:
        super().__init__()
        self.allow_partial = allow_partial
        self.strict_config = strict_config

    def after_load_checkpoint(self, runner: Runner, checkpoint: Checkpoint) -> None:
        """Compare the config of the training; check the tensors by loading them strictly.

        MMEngine loads the same state once more afterwards.

        Raises:
            UserError: The file holds no state of a model.
            CheckpointError: Tensors are missing, unknown, of another shape or not
                finite; or the model was trained otherwise, with ``strict_config``.
        """
        super().after_load_checkpoint(runner, checkpoint)
        model = innermost(runner.model)
        origin = f"The checkpoint '{source_of(runner)}'"
        if not starts_training(runner):
            use = Use(use_of_checkpoint(runner))
            compare_with_training(
                checkpoint, runner.cfg, origin, use, self.strict_config
            )
        state = checkpoint.get('state_dict', checkpoint)
        is_split = any(isinstance(m, FullyShardedDataParallel) for m in model.modules())
        may_be_partial = starts_training(runner) or is_split
        if may_be_partial or self.allow_partial:
            check_finite(state, origin, dict(model.named_buffers()))
        if may_be_partial:
            return
        if self.allow_partial:
            accept_records(model, state)
            return
        plain: OrderedDict[str, Any] = OrderedDict(select_state(dict(state_dict=state)))
        plain._metadata = getattr(state, '_metadata', {})  # type: ignore[attr-defined]
        load_strictly(model, plain, origin)
