"""Let MMEngine delete an old checkpoint only after it has written the new one."""

import copy
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from lm4ve.errors import check
from lm4ve.files import write_text


class SavesBeforeDeleting(CheckpointHook):
    """``CheckpointHook`` that writes the new checkpoint before it deletes the old one.

    Broken in MMEngine 0.10.7 (not reported upstream): its hook deletes first. With
    ``max_keep_ckpts=1`` or ``save_best``, a full disk or a killed job at that moment
    leaves no checkpoint at all, and ``last_checkpoint`` may be left empty. May go once
    MMEngine's hook saves before it deletes.
    """

    file_backend: Any

    def saving(self, runner: Runner) -> AbstractContextManager[None]:
        """Return a context in which a checkpoint is written, in all processes at once.

        Here it does nothing; a subclass may do something before and after.

        Args:
            runner (Runner): The runner.
        """
        return nullcontext()

    def _save_checkpoint_with_step(
        self, runner: Runner, step: int, meta: dict[str, Any]
    ) -> None:
        """Save the checkpoint of an epoch or iteration, then delete outdated ones.

        Overrides MMEngine's method, which does this in the other order.

        Args:
            runner (Runner): The runner.
            step (int): The number of epochs or iterations that are done.
            meta (dict): Stored with the checkpoint.
        """
        outdated = self._note_step(runner, step)
        filename = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, filename)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        with self.saving(runner):
            runner.save_checkpoint(
                self.out_dir,
                filename,
                self.file_client_args,
                save_optimizer=self.save_optimizer,
                save_param_scheduler=self.save_param_scheduler,
                meta=meta,
                by_epoch=self.by_epoch,
                backend_args=self.backend_args,
                **self.args,
            )
            if not is_main_process():
                return
            write_text(self.last_ckpt, Path(runner.work_dir) / 'last_checkpoint')
            for old_step in outdated:
                self._delete(self.filename_tmpl.format(old_step))

    def _note_step(self, runner: Runner, step: int) -> list[int]:
        """Add a step to those whose checkpoints are kept, and drop the oldest from them.

        Returns:
            list[int]: The dropped steps, whose checkpoints are to be deleted. None are
            dropped if there is no limit, or if this step was added before.
        """
        steps = list(getattr(self, 'keep_ckpt_ids', ()))
        if self.max_keep_ckpts <= 0 or steps[-1:] == [step]:
            return []
        steps.append(step)
        kept = steps[-self.max_keep_ckpts :]
        self.keep_ckpt_ids = deque(kept, self.max_keep_ckpts)
        runner.message_hub.update_info('keep_ckpt_ids', kept)
        return steps[: -self.max_keep_ckpts]

    def _delete(self, filename: str) -> None:
        """Delete a checkpoint of the hook's directory, if it exists."""
        path = self.file_backend.join_path(self.out_dir, filename)
        if self.file_backend.isfile(path):
            self.file_backend.remove(path)
        elif self.file_backend.isdir(path):  # as DeepSpeed and FSDP write them
            self.file_backend.rmtree(path)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict[str, Any]) -> None:
        """Save the checkpoint if it is the best so far, then delete the best one before it.

        MMEngine's method deletes before it saves. It runs here with a backend that only
        records what it is asked to delete; the deletions follow once it has returned.

        Args:
            runner (Runner): The runner.
            metrics (dict): Scores of the evaluation by name.

        Raises:
            UserError: ``save_best`` names a score that the evaluation does not have.
        """
        if not self.save_best:
            return  # `runner.val()` without training: there is no backend yet
        for key in self.key_indicators:
            check('checkpoint.save_best', key, choices=['auto', *metrics])
        backend = self.file_backend
        removals: list[tuple[Callable[[str], None], str]] = []

        def record_file(path: str) -> None:
            removals.append((backend.remove, path))

        def record_folder(path: str) -> None:
            removals.append((backend.rmtree, path))

        recording_backend = copy.copy(backend)
        recording_backend.remove = record_file
        recording_backend.rmtree = record_folder
        self.file_backend = recording_backend
        try:
            with self.saving(runner):
                super()._save_best_checkpoint(runner, metrics)
        finally:
            self.file_backend = backend
        best_by_score = getattr(self, 'best_ckpt_path_dict', None) or {}
        current = {getattr(self, 'best_ckpt_path', None), *best_by_score.values()}
        for remove, path in removals:
            if path not in current:
                remove(path)
