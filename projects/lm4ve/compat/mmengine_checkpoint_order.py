"""MMEngine deletes an old checkpoint before it has written the new one.

True of MMEngine 0.10.7 (not reported upstream): with ``max_keep_ckpts=1`` or
``save_best``, a full disk or a killed job at that moment leaves no checkpoint at all,
and ``last_checkpoint`` may be left empty. The order is fixed inside two private methods
of ``CheckpointHook``, which are overridden here and nowhere else. May go once the hook
saves before it deletes.
"""

import copy
import inspect
from collections import deque
from pathlib import Path
from types import ModuleType
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from lm4ve.files import write_text


def is_needed(checkpoint_hook: ModuleType) -> bool:
    """Return whether MMEngine's hook still deletes before it saves.

    Args:
        checkpoint_hook (ModuleType): ``mmengine.hooks.checkpoint_hook``.
    """
    text = inspect.getsource(checkpoint_hook.CheckpointHook._save_checkpoint_with_step)
    return text.index('.remove(') < text.index('save_checkpoint(\n')


class SavesBeforeDeleting(CheckpointHook):
    """MMEngine's ``CheckpointHook`` in the other order."""

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict[str, Any]) -> None:
        ids = list(getattr(self, 'keep_ckpt_ids', ()))
        outdated: list[int] = []
        if self.max_keep_ckpts > 0 and ids[-1:] != [step]:
            ids.append(step)
            outdated = ids[: -self.max_keep_ckpts]
            ids = ids[-self.max_keep_ckpts :]
            self.keep_ckpt_ids = deque(ids, self.max_keep_ckpts)
            runner.message_hub.update_info('keep_ckpt_ids', ids)
        filename = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, filename)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
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
        for old in outdated:
            path = self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(old))
            if self.file_backend.isfile(path):
                self.file_backend.remove(path)
            elif self.file_backend.isdir(path):  # DeepSpeed's, FSDP's
                self.file_backend.rmtree(path)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict[str, Any]) -> None:
        if not self.save_best:
            return  # `runner.val()` without training: there is no backend yet
        backend, removals = self.file_backend, []
        deferred = self.file_backend = copy.copy(backend)
        deferred.remove = lambda path: removals.append((backend.remove, path))
        deferred.rmtree = lambda path: removals.append((backend.rmtree, path))
        try:
            super()._save_best_checkpoint(runner, metrics)
        finally:
            self.file_backend = backend
        current = {getattr(self, 'best_ckpt_path', None)}
        current |= set((getattr(self, 'best_ckpt_path_dict', None) or {}).values())
        for remove, path in removals:
            if path not in current:
                remove(path)
